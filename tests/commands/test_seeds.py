"""`--seeds`: one command, several runs, and their statistics."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import run
from library.errors import CheckpointError, DivergedError, SettingsError, StoppedError
from library.training.trainer import Trainer
from tests.conftest import ROOT

SEEDS = (0, 1)

pytestmark = pytest.mark.usefixtures("in_root")


def options_of(data_dir, run_dir, *more):
    values = {"data_dir": data_dir, "run_dir": run_dir, "model": "simple", "image_size": 8}
    values |= {"batch_size": 16, "train_epochs": 2, "learning_rate": 0.01, "bootstrap_samples": 0}
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return [*words, "--no-report", *more]


@pytest.fixture(scope="module")
def finished(colors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "experiment"
    run.main(options_of(colors, folder, "--seeds", "0,1"))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "experiment")


def learned(folder):
    """What a run learned: the variables at its end, and its history but for the speed."""
    arrays = np.load(max(folder.glob("checkpoints/*/variables.npz")))
    with (folder / "history.csv").open(newline="") as file:
        rows = [{**row, "images_per_second": None} for row in csv.DictReader(file)]
    assert rows
    return {name: arrays[name].tobytes() for name in arrays.files}, rows


def test_metrics_are_summarized(finished):
    result = json.loads((finished / "seeds.json").read_text())
    losses = []
    for seed, entry in zip(SEEDS, result["seeds"], strict=True):
        best = json.loads((finished / f"seed_{seed}" / "best" / "metrics.json").read_text())
        assert (entry["seed"], entry["metrics"]) == (seed, best["validation"])
        losses.append(best["validation"]["loss"])
    assert losses[0] != losses[1]
    assert result["metrics"]["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert result["metrics"]["loss"]["standard_deviation"] == pytest.approx(np.std(losses, ddof=1))
    low, high = result["metrics"]["loss"]["mean_interval"]
    assert low < min(losses) < max(losses) < high
    assert result["diverged"] == []


@pytest.mark.slow
def test_seed_equals_a_process_of_its_own(finished, colors, tmp_path):
    words = options_of(colors, tmp_path / "run", "--random_seed", "1")
    done = subprocess.run([sys.executable, "run.py", *words], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert learned(tmp_path / "run") == learned(finished / "seed_1")
    weights = "best/model.weights.h5"
    for folder in (tmp_path / "run", finished / "seed_1"):
        shutil.unpack_archive(folder / "best" / "model.keras", folder / "unpacked", "zip")
    one, other = (
        (folder / "unpacked" / "model.weights.h5").read_bytes()
        for folder in (tmp_path / "run", finished / "seed_1")
    )
    assert one == other, weights


def test_interrupted_seed_resumes_and_finished_ones_are_left(
    finished, copied, colors, monkeypatch, capsys
):
    after_steps = Trainer.after_steps

    def stop_in_seed_1(self, *arguments):
        if self.paths.run_dir.name == "seed_1" and self.state.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        after_steps(self, *arguments)

    shutil.rmtree(copied / "seed_1")
    (copied / "seeds.json").unlink()
    before = {each: each.stat().st_mtime_ns for each in copied.glob("seed_0/checkpoints/*")}
    words = options_of(colors, copied, "--seeds", "0,1")
    monkeypatch.setattr(Trainer, "after_steps", stop_in_seed_1)
    with pytest.raises(StoppedError) as stopped:
        run.main(words)
    assert stopped.value.exit_code == 143
    assert not (copied / "seeds.json").exists()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(Trainer, "after_steps", after_steps)
    run.main(words)
    after = {each: each.stat().st_mtime_ns for each in copied.glob("seed_0/checkpoints/*")}
    assert before == after != {}
    assert learned(copied / "seed_1") == learned(finished / "seed_1")
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"] == json.loads((finished / "seeds.json").read_text())["metrics"]


def test_diverged_seed_is_named_and_the_others_are_trained(copied, colors, monkeypatch):
    fit = Trainer.fit

    def diverge_in_seed_0(self):
        if self.paths.run_dir.name == "seed_0":
            raise DivergedError("the loss became NaN")
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", diverge_in_seed_0)
    with pytest.raises(DivergedError, match=r"seed 0: .*NaN"):
        run.main(options_of(colors, copied, "--seeds", "0,1"))
    result = json.loads((copied / "seeds.json").read_text())
    assert [each["seed"] for each in result["diverged"]] == [0]
    assert [each["seed"] for each in result["seeds"]] == [1]
    assert result["metrics"]["loss"]["mean_interval"] is None


def test_seeds_are_evaluated_on_the_test_split(copied, colors, capsys):
    run.main(["evaluate", *options_of(colors, copied, "--seeds", "0,1")])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((copied / "seeds.test.json").read_text())
    losses = []
    for seed in SEEDS:
        path = copied / f"seed_{seed}" / "evaluation" / "test.json"
        losses.append(json.loads(path.read_text())["loss"])
    assert printed["metrics"]["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert {"macro_f1", "ece"} <= printed["metrics"].keys()


def test_using_the_experiment_as_a_run_names_those_of_its_seeds(copied, colors):
    with pytest.raises(CheckpointError, match=r"--run_dir .*seed_0"):
        run.main(["evaluate", *options_of(colors, copied)])


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--seeds", "1,0,1"], "differ.* 1, 0, 1"),
        (["--seeds", "0,many"], "integers.*many"),
        (["--seeds", "0,1", "--random_seed", "3"], "random_seed 3"),
        (["--seeds", "0,1", "--model_dir", "x"], "model_dir"),
        (["--seeds", "0,1", "--debug"], "debug"),
        (["--seeds", "0,1", "--dropout_rate", "0.2"], "seed_0 .*dropout_rate"),
        (["predict", "x.png", "--seeds", "0,1"], "predict"),
    ],
)
def test_what_excludes_seeds(copied, colors, more, error):
    with pytest.raises(SettingsError, match=error):
        run.main([*options_of(colors, copied), *more])


def test_seeds_in_a_cluster_are_refused(colors, tmp_path, monkeypatch):
    cluster = {"worker": ["localhost:1", "localhost:2"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    with pytest.raises(SettingsError, match=r"--random_seed 0 .*seed_0"):
        run.main(options_of(colors, tmp_path / "run", "--seeds", "0,1"))


def test_seeds_of_a_file_are_those_of_its_trainings(colors, tmp_path, capsys):
    for name, text in (("project", "default:\n  seeds: [3, 4]\n"), ("recipe", "default:\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
    files = ["--config_file", str(tmp_path / "project.yaml")]
    files += ["--hyperparameter_file", str(tmp_path / "recipe.yaml")]
    run.main([*options_of(colors, tmp_path / "run", *files), "--dry_run"])
    assert not (tmp_path / "run").exists()
    run.main(["--print_config", *files])
    assert "seeds: [3, 4]" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="random_seed 1"):
        run.main([*options_of(colors, tmp_path / "run", *files), "--random_seed", "1"])
