"""The command search on tiny images: results, resuming, failures, workers, a real database."""

import contextlib
import csv
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf

import run
from library.errors import SettingsError, UserError
from library.training.trainer import Trainer
from project.commands.trial_training import Trained, TrialTraining
from project.settings import read_settings
from tests.helpers.workers import Worker, free_ports

pytestmark = pytest.mark.usefixtures("in_root")

SPACES = """\
# A comment stays.
default: &default
  model: simple
tiny: &tiny
  <<: *default
  learning_rate: {log: [1e-3, 1e-1]}
  dropout_rate: [0.0, 0.5]
  width: {choices: [4, 8]}
failing:
  <<: *default
  width: 4
  learning_rate: {choices: [0.01, 1e30]}
  clip_norm: {choices: [none, 1.0]}
"""


@pytest.fixture
def spaces(tmp_path):
    path = tmp_path / "spaces.yaml"
    path.write_text(SPACES)
    return path


def words_of(colors, spaces, folder, *more):
    values = {"data_dir": colors, "run_dir": folder, "hyperparameter_file": spaces}
    values |= {"image_size": 8, "batch_size": 16, "train_epochs": 3}
    words = (f"--{name}={value}" for name, value in values.items())
    # The report of a trial has tests of its own.
    return ["search", *words, "--no-report", *more]


def read_table(folder):
    """The trials' rows, without what depends on the clock."""
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


class KilledError(BaseException):
    """Stands for the end of the process."""


@contextlib.contextmanager
def killed_after(monkeypatch, calls):
    """Kill what is in the block when this many calls of training steps have been made."""
    count, after_steps = iter(range(calls, -1, -1)), Trainer.after_steps

    def count_and_kill(self, *arguments):
        after_steps(self, *arguments)
        if not next(count):
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "after_steps", count_and_kill)
        with pytest.raises(KilledError):
            yield


def test_killed_search_resumes_and_writes_the_same(colors, spaces, tmp_path, monkeypatch, capsys):
    words = words_of(colors, spaces, tmp_path / "whole", "--search_space=tiny", "--trials=2")
    run.main([*words, "--write_set=found"])
    whole = json.loads(capsys.readouterr().out)
    words = words_of(colors, spaces, tmp_path / "killed", "--search_space=tiny", "--trials=2")
    for calls in (6, 12):  # within an epoch of the first and of the second trial
        with killed_after(monkeypatch, calls):
            run.main(words)
    run.main(words)
    killed = json.loads(capsys.readouterr().out)
    assert read_table(tmp_path / "killed") == read_table(tmp_path / "whole")
    assert killed["best"][0]["values"] == whole["best"][0]["values"]
    # All that is there belongs to the best, which is the set that was asked for.
    best = whole["best"][0]
    kept = [each.parent for each in (tmp_path / "whole").glob("trials/*/checkpoints")]
    assert kept == [Path(best["run_dir"])]
    assert len([*(tmp_path / "whole").glob("trials/*/best/metrics.json")]) == 2
    assert spaces.read_text().startswith(SPACES)
    found = read_settings([f"--hyperparameter_file={spaces}", "--hyperparameter_set=found"])
    assert best["hyperparameters"].items() <= found.hyperparameters.model_dump().items()
    assert "<polyline" in (tmp_path / "whole" / "search.html").read_text()
    # Nothing is trained again.
    monkeypatch.setattr(Trainer, "fit", None)
    run.main(words)
    assert json.loads(capsys.readouterr().out) == killed
    with pytest.raises(SettingsError, match="found"):
        run.main([*words, "--write_set=found"])


def test_failed_trials_are_recorded(colors, spaces, tmp_path, monkeypatch, capsys):
    fit = Trainer.fit

    def fit_or_fail(self):
        if "0003" in str(self.paths.run_dir):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", fit_or_fail)
    words = words_of(colors, spaces, tmp_path / "run", "--search_space=failing", "--sampler=grid")
    run.main([*words, "--objectives=accuracy,parameters"])
    result = json.loads(capsys.readouterr().out)
    rows = read_table(tmp_path / "run")
    reasons = [row["reason"] for row in rows]
    assert len(rows) == 4
    assert reasons[3] == "out of memory"
    diverged = [row["setting_learning_rate"] == "1e+30" for row in rows[:3]]
    assert ["the loss is" in each for each in reasons[:3]] == diverged
    assert result["trials"] == {"complete": 3 - sum(diverged), "failed": 1 + sum(diverged)}
    assert set(result["best"][0]["values"]) == {"accuracy", "parameters"}


def test_value_of_a_trial_is_the_mean_over_seeds(colors, spaces, tmp_path, monkeypatch, capsys):
    trained = []

    def train_once(self, settings, listeners):
        seed, folder = settings.project.random_seed, Path(settings.project.run_dir)
        trained.append((folder.parent.name, folder.name, len(listeners)))
        row = {"epoch": 1, "validation_loss": seed / 4, "validation_accuracy": 0.5}
        is_pruned = folder.parent.name == "0001"
        return Trained(row, row, SimpleNamespace(count_params=lambda: 7), 1.0, is_pruned)

    monkeypatch.setattr(TrialTraining, "_train_once", train_once)
    words = words_of(colors, spaces, tmp_path / "run", "--search_space=tiny", "--trials=2")
    run.main([*words, "--seeds=1,2"])
    # Pruning is decided by the first seed's training.
    seeds = [("0000", "seed_1", 1), ("0000", "seed_2", 0), ("0001", "seed_1", 1)]
    assert trained == seeds
    result = json.loads(capsys.readouterr().out)
    assert result["best"][0]["values"] == {"loss": 0.375}
    assert result["trials"] == {"complete": 1, "pruned": 1}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--search_space=default"], "default has no range"),
        (["--search_space=tiny", "--sampler=grid"], "dropout_rate"),
        (["--search_space=tiny", "--sampler=cmaes", "--objectives=loss,parameters"], "cmaes"),
        (["--search_space=tiny", "--objectives=loss,loss"], "loss"),
        (["--search_space=tiny", "--objectives=parameters"], "metric"),
        (["--search_space=tiny", "--objectives=los"], "loss"),
        (["--search_space=tiny", "--objectives=loss,macro_f1"], "--best_metric macro_f1"),
        (["--search_space=tiny", "--write_set=tiny"], r"spaces.yaml:4.*tiny"),
        (["--search_space=tiny", "--write_set=.x"], ".x"),
        (["--search_space=tiny", "--resume=never"], "run_dir"),
        (["--search_space=tiny", "--model_dir=x"], "model_dir"),
        (["--search_space=tiny", "--storage=nosql://x"], "nosql"),
        (["--search_space=tiny", "--best_metric=recall:pink", "--trials=2"], "pink"),
    ],
)
def test_what_holds_for_all_trials_ends_the_search(words, named, colors, spaces, tmp_path):
    with pytest.raises(SettingsError, match=named):
        run.main(words_of(colors, spaces, tmp_path / "run", *words))


@pytest.mark.slow
def test_process_killed_again_and_again_resumes(colors, spaces, tmp_path):
    def words(name):
        return words_of(colors, spaces, tmp_path / name, "--search_space=tiny", "--trials=3")

    for number, place in enumerate(("0000", "0001", "0001", "0002")):
        # At a change of the disk in a trial's folder: of a snapshot, or of a checkpoint.
        arguments = [f"trials/{place}/", str(12 + 9 * number), *words("killed")]
        code, said = Worker(arguments, module="tests.helpers.killed_command").finish()
        assert code == -9, said
    run.main(words("killed"))
    run.main(words("whole"))
    assert read_table(tmp_path / "killed") == read_table(tmp_path / "whole")


def check_shared_search(folders, words, trials):
    """Start two workers, kill one, and check that each trial was trained once to its end."""
    workers = [Worker([*words, f"--run_dir={folder}", f"--trials={trials}"]) for folder in folders]
    for each in workers:
        code, said = each.finish()
        assert code == 0, said
    rows = read_table(folders[0])
    assert [row["trial"] for row in rows] == [str(number) for number in range(trials)]
    return rows


@pytest.mark.slow
def test_two_processes_share_a_journal(colors, spaces, tmp_path):
    words = words_of(colors, spaces, tmp_path / "run", "--search_space=tiny", "--pruner=none")
    words = [each for each in words if not each.startswith("--run_dir")]
    rows = check_shared_search([tmp_path / "run"] * 2, words, 6)
    assert {row["state"] for row in rows} <= {"complete", "running"}
    # Whoever ends last has seen all.
    run.main([*words, f"--run_dir={tmp_path / 'run'}", "--trials=6"])
    assert {row["state"] for row in read_table(tmp_path / "run")} == {"complete"}


@pytest.fixture
def postgresql(tmp_path):
    """The URL of a database on a server that ends with the test."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    (port,) = free_ports(1)
    # The server refuses to run as root.
    folder = Path(f"/tmp/postgresql-{port}")
    # PostgreSQL refuses to run as root.
    command = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def call(name, *words):
        program = [*command, str(programs[-1] / name), "-D", str(folder), *words]
        subprocess.run(program, check=True, capture_output=True, cwd="/tmp")

    call("initdb", "-A", "trust", "--no-sync")
    options = f"-p {port} -c unix_socket_directories= -c fsync=off"
    call("pg_ctl", "start", "-w", "-o", options, "-l", f"{folder}.log")
    try:
        yield f"postgresql+psycopg://postgres:secret@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(folder)
        Path(f"{folder}.log").unlink()


@pytest.mark.slow
def test_lost_workers_trial_is_repeated_by_another_machine(
    postgresql, colors, spaces, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("library.search.storage.HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr("library.search.storage.GRACE_SECONDS", 1)
    words = words_of(colors, spaces, "shared", "--search_space=tiny", "--pruner=none")
    words += ["--trials=2", f"--storage={postgresql}"]
    places = [tmp_path / "one", tmp_path / "two"]
    for each in places:
        each.mkdir()
    monkeypatch.chdir(places[0])
    with killed_after(monkeypatch, 6):
        run.main(words)
    # On the same disk the trial is resumed, however long ago its worker died.
    with killed_after(monkeypatch, 6):
        run.main(words)
    monkeypatch.chdir(places[1])
    time.sleep(3)
    run.main(words)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["trials"] == {"complete": 2}
    assert "secret" not in result["study"]
    rows = read_table(places[1] / "shared")
    # The first was taken over under a new number.
    assert "0" not in [row["trial"] for row in rows]
    with pytest.raises(SettingsError, match="another study"):
        run.main(words[:-1])
    with pytest.raises(UserError, match="Connection refused"):
        run.main([*words[:-1], "--storage=postgresql+psycopg://postgres:secret@127.0.0.1:1/x"])
