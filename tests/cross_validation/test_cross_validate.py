"""The command cross_validate on three folds of tiny images."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import convert_dataset
import run
from library.dataset.folds import read_folds
from library.errors import CheckpointError, DataError, SettingsError
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.prediction.image_outputs import read_image_outputs
from library.saving.snapshots import read_snapshot
from library.training.trainer import Trainer
from project.inputs import EvaluationPipeline
from tests.conftest import write_colors
from tests.helpers.hub_modules import save_module
from tests.helpers.workers import Worker

pytestmark = pytest.mark.usefixtures("in_root")


def convert_folds(images, folder, *options):
    arguments = ["--dataset_dir", images, "--tfrecord_dir", folder, *options]
    convert_dataset.main(list(map(str, arguments)))


def options_of(data_dir, run_dir, *more, **changes):
    values = {"data_dir": data_dir, "run_dir": run_dir, "model": "simple", "image_size": 8}
    values |= {"batch_size": 8, "train_epochs": 3, "learning_rate": 0.01, "bootstrap_samples": 20}
    values |= changes
    return [word for name, value in values.items() for word in (f"--{name}", str(value))] + [*more]


def cross_validate(*arguments, **changes):
    run.main(["cross_validate", *options_of(*arguments, **changes)])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds") / "images"
    write_colors(folder, 16)
    return folder


@pytest.fixture(scope="module")
def data(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds") / "data"
    convert_folds(images, folder, "--split", "folds=3,test=0.2")
    return folder


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Options of a network whose base is a frozen module, with augmentations."""
    folder = tmp_path_factory.mktemp("module")
    save_module(folder)
    return {"model": "hub", "image_size": 6, "hub_handle": folder, "augmentations": "flip"}


@pytest.fixture(scope="module")
def finished(data, frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    cross_validate(data, folder, **frozen)
    return folder


def test_every_image_is_predicted_once_by_another_fold(finished, data):
    outputs = read_image_outputs(finished / "out_of_fold.npz")
    folds = read_folds(str(data))
    assert len(set(outputs.names)) == len(outputs) == sum(each.examples for each in folds)
    with (finished / "out_of_fold.images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(outputs.names)
    assert [int(row["fold"]) for row in rows] == outputs.folds.tolist()
    assert [row["label"] for row in rows] == [each.split("/")[0] for each in outputs.names]
    assert np.bincount(outputs.folds).tolist() == [0, *(each.examples for each in folds)]
    result = json.loads((finished / "cross_validation.json").read_text())
    assert result["missing_folds"] == []
    accuracy = (outputs.probabilities.argmax(1) == outputs.labels).mean()
    assert result["metrics"]["accuracy"]["pooled"] == pytest.approx(accuracy)
    for number, fold in enumerate(result["folds"], 1):
        best = json.loads(Path(fold["snapshot"], "metrics.json").read_bytes())
        assert fold["loss"] == pytest.approx(best["validation"]["loss"], rel=1e-5)
        recorded = Path(fold["snapshot"], "project.yaml").read_text(encoding="utf-8")
        assert f"fold: {number}" in recorded
    page = (finished / "cross_validation.html").read_text(encoding="utf-8")
    assert 'href="out_of_fold.images.csv"' in page
    assert f"{result['metrics']['accuracy']['mean']:.4f}" in page


def test_finished_folds_are_not_trained_again(finished, data, frozen, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("fold_*/checkpoints/*")}
    monkeypatch.setattr(Trainer, "fit", None)
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "library.reporting.cross_validation", None)  # deleted
    cross_validate(data, finished, **frozen)
    answer = capsys.readouterr()
    assert json.loads(answer.out)["missing_folds"] == []
    assert "library/reporting is missing" in answer.err
    after = {path: path.stat().st_mtime_ns for path in finished.glob("fold_*/checkpoints/*")}
    assert before == after != {}


def check_equal(one, other):
    first, second = (read_image_outputs(each / "out_of_fold.npz") for each in (one, other))
    assert list(first.names) == list(second.names)
    assert np.array_equal(first.probabilities, second.probabilities)
    assert np.array_equal(first.embeddings, second.embeddings)
    metrics = [json.loads((each / "cross_validation.json").read_text()) for each in (one, other)]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]


@pytest.mark.slow
def test_process_killed_again_and_again_resumes(finished, data, frozen, tmp_path):
    arguments = ["cross_validate", *options_of(data, tmp_path / "run", **frozen)]
    for number in (1, 2):
        # In the middle of its training: a fold makes more changes.
        words = [f"run/fold_{number}/", "15", *arguments]
        code, said = Worker(words, module="tests.helpers.killed_command").finish()
        assert code == -9, said
        assert len(list(tmp_path.glob("run/fold_*"))) == number
    run.main(arguments)
    check_equal(finished, tmp_path / "run")


def test_folds_of_a_frozen_base_share_its_features(finished, data, frozen, tmp_path):
    # Of each fold: two views, and the images as they are.
    assert len(list(finished.glob("cache/features-*"))) == 9
    outputs = read_image_outputs(finished / "out_of_fold.npz")
    assert len(outputs.embeddings) == len(outputs)
    for number, fold in enumerate(read_folds(str(data)), 1):
        network = read_snapshot(finished / f"fold_{number}" / "best").network
        batches = EvaluationPipeline(make_source(fold), ImageFormat(6, 3), 64).batches()
        scores = np.concatenate([network(images, training=False) for images, _ in batches])
        wanted = tf.nn.softmax(scores).numpy()
        assert outputs.probabilities[outputs.folds == number] == pytest.approx(wanted, abs=1e-5)
    # One fold alone, with a call per step, learns the same to the bit, although it computes all
    # features itself.
    one = {**frozen, "steps_per_execution": 1}
    words = options_of(data, tmp_path / "run", "--fold", "2", "--no-report", **one)
    run.main(["train", *words])
    alone, among = (
        np.load(max(each.glob("checkpoints/step_*")) / "variables.npz")
        for each in (tmp_path / "run", finished / "fold_2")
    )
    assert all(np.array_equal(alone[name], among[name]) for name in alone.files)


def test_single_fold_names_the_missing_ones(data, tmp_path, capsys, caplog):
    cross_validate(data, tmp_path / "run", "--fold", "2")
    result = json.loads(capsys.readouterr().out)
    assert (result["missing_folds"], len(result["folds"])) == ([1, 3], 1)
    assert result["metrics"]["accuracy"]["standard_deviation"] is None
    assert "lack" in caplog.text
    assert "1, 3" in caplog.text


def test_seeds_of_a_cross_validation(finished, data, frozen, tmp_path, capsys):
    # Seed 0 is finished: it has the fixture's settings.
    shutil.copytree(finished / "fold_2", tmp_path / "run" / "seed_0" / "fold_2")
    cross_validate(data, tmp_path / "run", "--fold", "2", "--seeds", "0,1", **frozen)
    printed = json.loads(capsys.readouterr().out)
    means = [
        json.loads((tmp_path / "run" / f"seed_{seed}" / "cross_validation.json").read_text())
        for seed in (0, 1)
    ]
    losses = [each["metrics"]["loss"]["mean"] for each in means]
    assert printed["metrics"]["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert losses[0] != losses[1]
    assert printed["seeds"][1]["missing_folds"] == [1, 3]


def test_other_settings_are_refused(finished, data, frozen):
    with pytest.raises(SettingsError, match=r"fold_1 .*dropout_rate 0.5.* 0.2"):
        cross_validate(data, finished, "--dropout_rate", "0.2", **frozen)


def test_other_data_is_refused(finished, images, data, frozen, tmp_path):
    write_colors(tmp_path / "images", 16)
    next((tmp_path / "images" / "red").iterdir()).unlink()
    convert_folds(tmp_path / "images", tmp_path / "data", "--split", "folds=3,test=0.2")
    with pytest.raises(CheckpointError, match="other images"):
        cross_validate(tmp_path / "data", finished, **frozen)


@pytest.mark.parametrize(
    ("folder", "more", "error", "reason"),
    [
        ("data", ["--fold", "7"], SettingsError, "fold 7: .* 1 to 3"),
        ("images", [], DataError, "no folds.*--split folds=5"),
        ("data", ["--model_dir", "x"], SettingsError, "model_dir"),
        ("data", ["--debug"], SettingsError, "train --fold 1"),
        ("data", ["--data_format", "folder"], SettingsError, "converted"),
    ],
)
def test_what_cannot_be_cross_validated(folder, more, error, reason, tmp_path, request):
    with pytest.raises(error, match=reason):
        cross_validate(request.getfixturevalue(folder), tmp_path / "run", *more)
    assert not (tmp_path / "run").exists()


def test_folds_are_used_as_ensemble_and_alone(finished, data, capsys, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    runs = [tmp_path / "run" / f"fold_{number}" for number in (1, 2, 3)]
    shared = ["--data_dir", str(data), "--bootstrap_samples", "0"]
    capsys.readouterr()
    ensemble = ["--ensemble", ",".join(map(str, runs)), "--run_dir", str(tmp_path / "run")]
    run.main(["evaluate", *shared, *ensemble])
    assert len(json.loads(capsys.readouterr().out)["members"]) == 3
    # The fold is that of the run, or the run is that of the fold.
    for words in (["--run_dir", str(runs[1])], ["--run_dir", str(tmp_path / "run"), "--fold", "2"]):
        run.main(["evaluate", *shared, *words, "--split", "validation"])
        result = json.loads(capsys.readouterr().out)
        assert result["images"] == read_folds(str(data))[1].examples
        assert result["data"]["is_own"]
        assert (runs[1] / "evaluation" / "validation.json").is_file()
