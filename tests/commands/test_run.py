"""run.py: training, evaluation, errors and exit codes."""

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest

import run
from library.dataset.manifest import read_manifest
from library.errors import run_main
from tests.conftest import ROOT


def call(capsys, *arguments):
    """Run in this process. Return (exit code, stdout, stderr)."""
    code = run_main(run.main, list(arguments), "run.py")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def without_model(options):
    """Return the options of the fixture without the model; an option may be given only once."""
    return [each for each in options if each not in ("--model", "simple")]


def damage_shard(data_dir):
    """Flip a bit of the first training image. Return the shard's path."""
    shard = read_manifest(data_dir / "train", "train").paths[0]
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    return shard


def test_train_then_evaluate_then_resume(capsys, options, colors, tmp_path):
    code, out, err = call(capsys, *options)
    assert code == 0, err
    assert "simple: " in err
    assert re.search(r"\b60 .*\b18 .*images", err)
    best = json.loads(out)
    assert best["validation"]["accuracy"] == 1.0
    saved = {each.name for each in (tmp_path / "run" / "best").iterdir()}
    assert saved >= {"model.keras", "metrics.json", "classes.json", "project.yaml"}
    with (tmp_path / "run" / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert (tmp_path / "run" / "curves.svg").exists()

    code, out, err = call(capsys, "evaluate", *options)
    assert code == 0, err
    result = json.loads(out)
    assert result["accuracy"] == 1.0
    assert result["images"] == 18
    assert result["macro_f1"] == 1.0
    assert 0.8 < result["intervals"]["accuracy"][0] < 1.0
    assert result["split"] == "test"
    assert [row["images"] for row in result["classes"].values()] == [6, 6, 6]
    assert "macro ROC AUC" in err
    assert result["epoch"] == best["epoch"]
    assert re.search("accuracy.* 1.0000", err)
    assert str(tmp_path / "run" / "best") in err

    # With no other split than the one asked for, only the temperature is missing.
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "test").symlink_to(colors / "test")
    elsewhere = [str(tmp_path / "only") if each == str(colors) else each for each in options]
    code, out, err = call(capsys, "evaluate", *elsewhere)
    assert code == 0, err
    assert json.loads(out)["accuracy"] == 1.0
    assert "temperature" not in json.loads(out)
    assert re.search("warning: .*temperature.*validation", err)

    code, out, err = call(capsys, *options)
    assert code == 0
    assert re.search("(?i)already.*train_epochs", err)

    # What the run wrote repeats it.
    written = ["--config_file", str(tmp_path / "run" / "project.yaml")]
    written += ["--hyperparameter_file", str(tmp_path / "run" / "hyperparameters.yaml")]
    code, again, err = call(capsys, *written, "--run_dir", str(tmp_path / "again"))
    assert code == 0, err
    before, after = json.loads(best_line(out)), json.loads(again)
    assert {**before, "snapshot": ""} == {**after, "snapshot": ""}


def best_line(out):
    return out.strip().splitlines()[-1]


@pytest.mark.slow
def test_evaluate_split_and_checkpoint(capsys, options, tmp_path):
    assert call(capsys, *options)[0] == 0
    checkpoint = str(tmp_path / "run" / "checkpoints" / "step_0000000008")
    more = ("--split", "validation", "--checkpoint", checkpoint, "--bootstrap_samples", "0")
    code, out, err = call(capsys, "evaluate", *options, *more)
    assert code == 0, err
    result = json.loads(out)
    with (tmp_path / "run" / "history.csv").open() as file:
        _, row, *_ = csv.DictReader(file)
    assert result["loss"] == pytest.approx(float(row["validation_loss"]), rel=1e-5)
    assert result["accuracy"] == float(row["validation_accuracy"])
    assert (result["epoch"], result["snapshot"], result["split"]) == (2, checkpoint, "validation")
    code, out, err = call(capsys, "evaluate", *options, "--checkpoint", str(tmp_path))
    assert (code, out) == (4, "")
    assert err.splitlines()[-1].startswith(f"run.py: error: {tmp_path} ")


def test_validate_only(capsys, snapshot_run, tmp_path):
    best, run_dir = str(snapshot_run.folder / "best"), str(tmp_path / "run")
    more = ["--run_dir", run_dir, "--bootstrap_samples", "0", "--validate", "-vc", best]
    code, out, err = call(capsys, *snapshot_run.options[:2], *more, "-vn", "mine")
    assert code == 0, err
    result = json.loads(out)
    assert (result["split"], result["images"], result["snapshot"]) == ("validation", 18, best)
    written = {each.name for each in (tmp_path / "run" / "evaluation").iterdir()}
    assert written >= {"mine.json", "mine.html"}
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_train_with_config_set_and_xla(capsys, options):
    code, out, err = call(capsys, "--config_set", "gtx1080ti", "--xla", *options)
    assert code == 0, err
    assert json.loads(out)["validation"]["accuracy"] == 1.0
    assert re.search(r"batch size.* 512\b|\b512 an epoch", err)


@pytest.mark.slow
def test_hyperparameter_set_mobilenet_fine_tunes_hub_module(capsys, options, tmp_path):
    from tests.helpers.hub_modules import save_module

    save_module(tmp_path / "module")
    # The options of the fixture set the learning rate that the set would bring.
    options = without_model(options)
    code, out, err = call(
        capsys,
        *options,
        "--hyperparameter_set",
        "mobilenet",
        "--hub_handle",
        str(tmp_path / "module"),
    )
    assert code == 0, err
    assert err.startswith("hub: ")
    code, again, err = call(capsys, "evaluate", *options)
    assert code == 0, err
    assert json.loads(out)["epoch"] == json.loads(again)["epoch"]


def test_dry_run_writes_nothing(capsys, options, tmp_path):
    code, _, err = call(capsys, *options, "--dry_run")
    assert code == 0, err
    assert re.search(r"\(16, 8, 8, 3\).*\(16, 3\)", err)
    assert not (tmp_path / "run").exists()


def test_missing_data_names_the_conversion_command(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    code, _, err = call(capsys, "--data_dir", str(tmp_path))
    assert code == 3
    assert err.count("\n") == 1
    assert f"python convert_dataset.py --dataset_dir {tmp_path}/train" in err


def test_evaluate_without_snapshot_exits_4(capsys, options, tmp_path):
    code, _, err = call(capsys, "evaluate", *options)
    assert code == 4
    assert str(tmp_path / "run" / "best") in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--config_set", "gtx1080"], r"unknown .*set 'gtx1080'.*did you mean 'gtx1080ti'"),
        (["--lerning_rate", "1"], "did you mean '?--learning_rate"),
        (["--train_epochs", "0"], "train_epochs .* 1, not 0"),
        (["tarin"], "did you mean 'train'"),
        (["--cache_dir", "gs://b/c"], "--cache_dir .*'gs://b/c'"),
        (["--augmentations", "flop"], "unknown augmentation 'flop'; did you mean 'flip'"),
        (["--model", "simpel"], "unknown network 'simpel'; did you mean 'simple'"),
    ],
)
def test_wrong_settings_exit_2(capsys, options, arguments, text):
    code, out, err = call(capsys, *without_model(options), *arguments)
    assert (code, out) == (2, "")
    assert re.search(text, err.splitlines()[-1])
    assert "Traceback" not in err


def test_help_and_errors_without_tensorflow():
    for arguments, code in ((["--help"], 0), (["--print_config"], 0), (["--nonsense"], 2)):
        check = (
            "import sys, run\nfrom library.errors import run_main\n"
            f"code = run_main(run.main, {arguments}, 'run.py')\n"
            "assert not {'tensorflow', 'keras', 'numpy'} & sys.modules.keys()\nsys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True)
        assert done.returncode == code, done.stderr


def test_damaged_record_is_named(capsys, colors, snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shutil.copytree(colors, tmp_path / "data")
    shard = damage_shard(tmp_path / "data")
    given = list(snapshot_run.options)
    given[given.index("--data_dir") + 1] = str(tmp_path / "data")
    given[given.index("--run_dir") + 1] = str(tmp_path / "run")
    best = ["--best_model_dir", str(snapshot_run.folder / "best")]
    for arguments in (["--dry_run"], ["explain", "--explain_images=1", *best]):
        code, out, err = call(capsys, *arguments, *given)
        assert (code, out) == (3, "")
        assert f"{shard}: record 0 " in err.splitlines()[-1]


def test_evaluate_at_a_terminal_prints_no_json(capsys, snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    given = [*snapshot_run.options, "--bootstrap_samples=0", "--max_eval_steps=1"]
    given[given.index("--run_dir") + 1] = str(tmp_path)
    both = f"{snapshot_run.folder},{snapshot_run.folder}/best"
    code, out, err = call(capsys, "evaluate", *given, "--ensemble", both)
    assert (code, out) == (0, ""), err
    assert f"16 images; ensemble: {both.replace(',', ', ')}; " in err
    (written,) = (tmp_path / "evaluation").glob("test-ensemble-*-first16.json")
    result = json.loads(written.read_text())
    assert (result["images"], result["images_in_split"]) == (16, 18)
    assert [each["snapshot"] for each in result["members"]] == [f"{snapshot_run.folder}/best"] * 2
    assert result["snapshot"] is result["epoch"] is None
    assert len(result["data"]["fingerprint"]) == 64
    page = written.with_suffix(".html").read_text()
    assert re.search("Evaluated: .*2 networks.*16 of 18 images", page)
    # These belong to one run.
    assert "Training curves" not in page
    assert "train_epochs" not in page


@pytest.mark.slow
def test_evaluate_names_files_after_what_was_evaluated(
    capsys, snapshot_run, colors, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    shutil.copytree(snapshot_run.folder, tmp_path / "run")
    shutil.copytree(colors / "test", tmp_path / "other" / "test")
    given = [*snapshot_run.options, "--bootstrap_samples=0"]
    given[given.index("--run_dir") + 1] = str(tmp_path / "run")
    elsewhere = [str(tmp_path / "other") if each == str(colors) else each for each in given]
    for options in (given, [*given, "--max_eval_steps=1"], elsewhere, [*given, "--tta=2"]):
        code, _, err = call(capsys, "evaluate", *options)
        assert code == 0, err
    names = {each.stem: each for each in (tmp_path / "run" / "evaluation").glob("test*.json")}
    assert len(names) == 4
    result = json.loads(names["test"].read_text())
    assert (result["images"], result["views"], result["data"]["is_own"]) == (18, 1, True)
    (foreign,) = (each for name, each in names.items() if name.startswith("test-other-"))
    page = foreign.with_suffix(".html").read_text()
    assert f"Evaluated: data from {tmp_path}/other." in page
    page = names["test-tta2"].with_suffix(".html").read_text()
    assert re.search("Evaluated: .*2 views", page)
    assert "simple: " in page
    page = names["test"].with_suffix(".html").read_text()
    assert "Evaluated: " not in page
    assert "Training curves" in page
    assert "train_epochs" in page


@pytest.mark.slow
def test_non_square_images_from_training_to_export(capsys, options, colors, tmp_path):
    from library.saving.snapshots import read_snapshot

    options = [*options, "--image_width=12", "--max_train_steps=4"]
    code, out, err = call(capsys, *options, "--augmentations=distorted_crop,flip,rotation")
    assert code == 0, err
    stored = read_snapshot(tmp_path / "run" / "best")
    assert stored.network.input_shape == (None, 8, 12, 3)
    accuracy = json.loads(out)["validation"]["accuracy"]
    code, out, err = call(capsys, "evaluate", "--split=validation", *options)
    assert (code, json.loads(out)["accuracy"]) == (0, accuracy), err
    # What is exported is compared with evaluation's images.
    # Of the data, the validation split is enough.
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "validation").symlink_to(colors / "validation")
    options[options.index("--data_dir") + 1] = str(tmp_path / "data")
    where = ["--export_dir", str(tmp_path), "--export_name", "colors", "--calibrate"]
    code, out, err = call(capsys, "export", *options, *where)
    assert code == 0, err
    answers = json.loads(out)
    assert answers["export"] == str(tmp_path / "colors" / "1")
    assert answers["formats"]["saved_model"]["difference"] <= 1e-5
    assert "100.0% of 18 validation images" in err
    assert (tmp_path / "colors" / "1" / "saved_model.pb").exists()
    assert "# colors, version 1" in (tmp_path / "colors" / "1" / "README.md").read_text()
