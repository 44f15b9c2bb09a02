"""The command clean: in-sample, held-out and out-of-fold predictions, every kind of snapshot."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import convert_dataset
from library.cleaning.suspects import read_suspects
from library.dataset.manifest import read_manifest
from library.inputs.examples import make_source
from library.models.scores import MULTI_LABEL
from library.prediction.image_outputs import (
    collect_image_outputs,
    read_image_outputs,
    write_image_outputs,
)
from library.saving.snapshots import read_snapshot, write_snapshot
from project.inputs import EvaluationPipeline
from tests.commands.test_run import call
from tests.conftest import ROOT, convert, write_colors
from tests.helpers.foreign_records import write_examples
from tests.helpers.networks import make_snapshot

WRONG = ["blue/red_0.png", "blue/red_1.png", "green/red_2.png"]


@pytest.fixture(scope="module")
def mislabeled(tmp_path_factory):
    """Converted colors in which three red images have other labels, one of them twice."""
    data = tmp_path_factory.mktemp("mislabeled")
    for split in ("train", "test"):
        images = data / "images" / split
        write_colors(images, 12, seed=5)
        for number, name in enumerate(WRONG):
            (images / "red" / f"{number:03d}.png").rename(images / name)
        shutil.copy(images / WRONG[2], images / "red" / "copy.png")
        convert(images, data, split)
    return data


@pytest.fixture
def run_dir(snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    shutil.copytree(snapshot_run.folder, tmp_path / "run")
    return tmp_path / "run"


def clean(capsys, run_dir, data, *options):
    """Return (the result, stderr)."""
    words = [f"--run_dir={run_dir}", f"--data_dir={data}", *options]
    code, out, err = call(capsys, "clean", *words)
    assert code == 0, err
    return json.loads(out), err


def ranked(run_dir):
    with (run_dir / "cleaning" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_clean_finds_wrong_labels(capsys, run_dir, mislabeled):
    result, err = clean(capsys, run_dir, mislabeled, "--count=4")
    assert "cross_validate" in err
    assert (result["predictions"], result["images"], result["suspected"]) == ("in_sample", 37, 3)
    rows = ranked(run_dir)
    assert {row["file"] for row in rows[:3]} == {*WRONG}
    assert {row["suggestion"] for row in rows[:3]} == {"red"}
    assert [row["suspected"] for row in rows] == ["1"] * 3 + ["0"] * 34
    assert sum(each["images"] for each in result["confusions"]) == 3

    folder = run_dir / "cleaning"
    suspects = read_suspects(folder)
    assert len(suspects.suspects) == 4
    found = {each.file: each for each in suspects.suspects}
    twice = found[WRONG[2]]
    assert "duplicate" in twice.reasons
    assert "red/copy.png" in twice.explanation
    assert twice.neighbors[0].file == "red/copy.png"
    # The images are where they were converted from.
    assert twice.sha256 == found["red/copy.png"].sha256 is not None
    for each in suspects.suspects:
        for thumbnail in (each.thumbnail, *(near.thumbnail for near in each.neighbors)):
            with Image.open(folder / thumbnail) as image:
                assert image.size == (16, 16)
    with Image.open(folder / twice.thumbnail) as image:
        red, green, blue = np.asarray(image.convert("RGB")).mean((0, 1))
    assert red > 180 > 100 > max(green, blue)
    assert (folder / "index.html").is_file()

    before = files_in(folder)
    (folder / "corrections.csv").write_text("file,action\nred/0.png,drop\n")
    clean(capsys, run_dir, mislabeled, "--count=4")
    after = files_in(folder)
    assert after.pop("corrections.csv") == b"file,action\nred/0.png,drop\n"
    before.pop("corrections.csv")
    assert after == before


def write_outputs(run_dir, data, names=None, **changed):
    """Write out_of_fold.npz in another order than the data's."""
    snapshot = read_snapshot(run_dir / "best")
    source = make_source(read_manifest(data / "train", "train"))
    outputs = collect_image_outputs(
        snapshot, EvaluationPipeline(source, snapshot.image_format, 16), with_embeddings=True
    )
    order = np.arange(len(outputs))[::-1]
    arrays = {
        name: getattr(outputs, name)[order] for name in ("labels", "probabilities", "embeddings")
    }
    names = names or [outputs.names[each] for each in order]
    folds = np.arange(len(outputs)) % 2 + 1
    path = run_dir / "out_of_fold.npz"
    write_image_outputs(path, replace(outputs, names=names, folds=folds, **arrays, **changed))
    return path


def test_clean_uses_out_of_fold_predictions(capsys, run_dir, mislabeled):
    clean(capsys, run_dir, mislabeled)
    in_sample = {row["file"]: row["probability_label"] for row in ranked(run_dir)}
    path = write_outputs(run_dir, mislabeled)
    # The snapshot isn't needed.
    shutil.rmtree(run_dir / "best")
    result, err = clean(capsys, run_dir, mislabeled)
    assert result["predictions"] == "out_of_fold"
    assert "in-sample" not in err
    # Each image has its own predictions, whatever the order in the file.
    assert {row["file"]: row["probability_label"] for row in ranked(run_dir)} == in_sample
    assert {row["file"] for row in ranked(run_dir)[:3]} == {*WRONG}

    outputs = read_image_outputs(path)
    write_image_outputs(path, replace(outputs, classes=("blue", "green", "other")))
    code, out, err = call(capsys, "clean", f"--run_dir={run_dir}", f"--data_dir={mislabeled}")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert str(path) in err


def test_clean_asks_neighbors_by_the_networks_of_the_folds(capsys, run_dir, mislabeled, tmp_path):
    data, images = tmp_path / "folds", mislabeled / "images" / "train"
    words = ["--dataset_dir", str(images), "--tfrecord_dir", str(data), "--split", "folds=2"]
    convert_dataset.main(words)
    capsys.readouterr()
    snapshot, parts = read_snapshot(run_dir / "best"), []
    for number in (1, 2):
        shutil.copytree(run_dir / "best", run_dir / f"fold_{number}" / "best")
        source = make_source(read_manifest(data / f"fold_{number}", f"fold_{number}"))
        inputs = EvaluationPipeline(source, snapshot.image_format, 16)
        parts.append(collect_image_outputs(snapshot, inputs))
    joined = {
        name: np.concatenate([getattr(each, name) for each in parts])
        for name in ("names", "labels", "probabilities")
    }
    folds = np.repeat([1, 2], list(map(len, parts)))
    outputs = replace(parts[0], **joined | {"names": joined["names"].tolist()}, folds=folds)
    write_image_outputs(run_dir / "out_of_fold.npz", outputs)
    clean(capsys, run_dir, data)
    assert {row["file"] for row in ranked(run_dir)[:3]} == {*WRONG}
    near = read_suspects(run_dir / "cleaning").suspects[0]
    assert "neighbors" in near.reasons
    assert "nearest images" in near.explanation
    # Without a network, probabilities and duplicates are the evidence.
    shutil.rmtree(run_dir / "fold_2")
    _, err = clean(capsys, run_dir, data)
    assert "fold_2" in err
    assert "nearest images" not in read_suspects(run_dir / "cleaning").suspects[0].explanation


def test_clean_does_without_predictions_that_lack_images(capsys, run_dir, mislabeled):
    path = write_outputs(run_dir, mislabeled, names=[f"{n}.png" for n in range(37)])
    result, err = clean(capsys, run_dir, mislabeled)
    assert result["predictions"] == "in_sample"
    assert f"{path} has no predictions for 37 images" in err


def test_clean_held_out_split_with_an_ensemble(capsys, run_dir, mislabeled):
    ensemble = f"--ensemble={run_dir},{run_dir}/best"
    result, err = clean(capsys, run_dir, mislabeled, "--split=test", ensemble, "--tta=2")
    assert (result["predictions"], result["split"]) == ("held_out", "test")
    assert "in-sample" not in err
    assert {row["file"] for row in ranked(run_dir)[:3]} == {*WRONG}


def test_clean_records_without_file_names(capsys, run_dir, mislabeled, tmp_path):
    examples = [
        {"image": path.read_bytes(), "label": label}
        for label, name in enumerate(("blue", "green", "red"))
        for path in sorted((mislabeled / "images" / "train" / name).iterdir())
    ]
    records = write_examples(tmp_path / "records" / "train", *examples)
    words = [f"--run_dir={run_dir}", f"--train_metadata={records}"]
    # The labels of such records are numbers, which the run's classes must have, too.
    snapshot = read_snapshot(run_dir / "best")
    texts = {"data.json": json.dumps(snapshot.data)}
    write_snapshot(run_dir / "best", snapshot.network, ("0", "1", "2"), snapshot.metrics, texts)
    code, _, err = call(capsys, "clean", *words, "--tfrecord_fields=image=image,label=label")
    assert code == 0, err
    names = [row["file"] for row in ranked(run_dir)]
    assert sorted(names) == sorted(f"train/{number}" for number in range(37))
    assert read_suspects(run_dir / "cleaning").suspects[0].sha256 is None


def test_clean_multi_label_images(capsys, patches, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    snapshot = make_snapshot(classes=("blue", "red"), head=MULTI_LABEL)
    write_snapshot(tmp_path / "best", snapshot.network, snapshot.classes, {}, {})
    result, _ = clean(capsys, tmp_path, patches)
    assert result["images"] == 48
    for row in ranked(tmp_path):
        assert {*row["label"].split("|")} <= {"blue", "red", ""}
        assert row["suggestion"] != row["label"]
    assert read_suspects(tmp_path / "cleaning").multi_label


def test_clean_says_what_is_missing(capsys, run_dir, mislabeled, tmp_path):
    data = f"--data_dir={mislabeled}"
    for code, *options in (
        (4, data, f"--run_dir={tmp_path}/none"),
        (3, f"--data_dir={tmp_path}/none", f"--run_dir={run_dir}"),
        (2, data, f"--run_dir={run_dir}", "--threshold=0.5"),
        (2, data, f"--run_dir={run_dir}", "--count=0"),
    ):
        found, out, err = call(capsys, "clean", *options)
        assert (found, out) == (code, ""), err
        assert err.splitlines()[-1].startswith("run.py: error: ")
    (run_dir / "out_of_fold.npz").write_bytes(b"no zip")
    code, _, err = call(capsys, "clean", data, f"--run_dir={run_dir}")
    assert code == 3
    assert "out_of_fold.npz" in err


def test_clean_refuses_nan(capsys, run_dir, mislabeled):
    snapshot = read_snapshot(run_dir / "best")
    snapshot.network.layers[-1].bias.assign([np.nan, 0, 0])
    texts = {"data.json": json.dumps(snapshot.data)}
    write_snapshot(run_dir / "best", snapshot.network, snapshot.classes, snapshot.metrics, texts)
    code, out, err = call(capsys, "clean", f"--run_dir={run_dir}", f"--data_dir={mislabeled}")
    assert (code, out) == (5, ""), err
