"""Use a snapshot from the command line: predict, export and their errors."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import run
from project.commands.setup import follow_run
from project.settings import read_settings
from tests.commands.test_run import call
from tests.conftest import ROOT, convert, write_colors


def test_predict_prints_classes_and_errors(capsys, snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    images = tmp_path / "images"
    write_colors(images, 2, seed=9)
    (images / "red" / "notes.jpg").write_text("no image")
    options = [*snapshot_run.options, "--top_k", "2"]
    code, out, err = call(capsys, "predict", str(images), *options, "--threshold_precision=0.9")
    assert code == 0, err
    assert "threshold 0." in err
    assert "6 images predicted, 1 unreadable" in err
    assert f"{images}/red/notes.jpg" in err
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["class"] for row in rows] == ["blue", "blue", "green", "green", "red", "red", ""]

    more = ["--tta=3", "--threshold=1", "--predict_format=jsonl"]
    more += ["--ensemble", f"{snapshot_run.folder},{snapshot_run.folder}/best"]
    code, out, err = call(capsys, "predict", f"{images}/blue/000.png", *options, *more)
    assert code == 0, err
    answers = json.loads(out)
    assert (answers["class"], answers["top"][0]["class"]) == ("unknown", "blue")

    (tmp_path / "empty.png").touch()
    nothing = (str(images / "red" / "notes.jpg"), str(tmp_path / "empty.png"))
    code, out, err = call(capsys, "predict", *nothing, *options)
    assert code == 3
    reasons = [row["error"] for row in csv.DictReader(out.splitlines())]
    assert reasons == ["is not a JPEG, PNG, GIF, BMP, TIFF or WebP image", "is empty"]
    assert err.splitlines()[-2:] == [
        "0 images predicted, 2 unreadable",
        "run.py: error: none of the files could be predicted",
    ]


@pytest.mark.parametrize("command", ["predict README.md", "serve --port=0"])
def test_threshold_refuses_a_class_named_like_its_answer(
    capsys, monkeypatch, snapshot_run, command
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("library.prediction.calibrate.UNKNOWN", "red")
    for threshold in ("--threshold=0.5", "--threshold_precision=0.5", "--unknown_rate=0.1"):
        code, out, err = call(capsys, *command.split(), *snapshot_run.options, threshold)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "'red'" in err


def test_predict_answers_unknown_without_data_once_it_is_fitted(
    capsys, snapshot_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    run_dir = tmp_path / "run"
    shutil.copytree(snapshot_run.folder / "best", run_dir / "best")
    write_colors(tmp_path / "images", 4, seed=5)
    noise = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for number, each in enumerate(noise):
        Image.fromarray(each).save(tmp_path / "images" / f"{number}.png")
    options = [*snapshot_run.options, "--unknown_rate=0.1"]
    options[options.index("--run_dir") + 1] = str(run_dir)
    arguments = ("predict", str(tmp_path / "images"), *options)
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "unknown images: score neighbors" in err
    classes = [row["class"] for row in csv.DictReader(out.splitlines())]
    assert classes[:3] == ["unknown"] * 3
    assert sum(each == "unknown" for each in classes[3:]) <= 3
    # The file is enough: the data may be gone.
    elsewhere = [str(tmp_path / "no_data") if each == options[1] else each for each in arguments]
    assert call(capsys, *elsewhere)[:2] == (0, out)
    (run_dir / "unknown_neighbors.npz").write_bytes(b"damaged")
    code, out, err = call(capsys, *elsewhere)
    assert (code, out) == (3, "")
    assert "unknown_neighbors.npz" in err
    assert "no_data" in err.splitlines()[-1]


def test_predict_matches_evaluation_of_the_same_images(capsys, colors, snapshot_run, monkeypatch):
    import keras
    import numpy as np

    from library.dataset.splits import read_splits
    from library.evaluation.predictions import predict_batches
    from library.saving.snapshots import read_snapshot
    from project import load_network
    from project.settings import read_settings

    monkeypatch.chdir(ROOT)
    snapshot = read_snapshot(snapshot_run.folder / "best")
    (split,) = read_splits(colors, "test")
    inputs = load_network.make_inputs_for(snapshot, read_settings(snapshot_run.options), split)
    expected = predict_batches(snapshot.network, inputs.named_batches())
    arguments = [*snapshot_run.options, "--top_k=3", "--predict_format=jsonl", "--embedding"]
    code, out, err = call(capsys, "predict", str(colors / "test"), *arguments)
    assert code == 0, err
    answers = {each["file"]: each for each in map(json.loads, out.splitlines())}
    assert len(answers) == len(expected) == 18
    for name, probabilities in zip(expected.names, expected.probabilities(), strict=True):
        top = answers[f"{colors}/test/{name}"]["top"]
        found = {each["class"]: each["probability"] for each in top}
        wanted = dict(zip(snapshot.classes, probabilities, strict=True))
        assert found == pytest.approx(wanted, abs=2e-6)
    # The embedding is what the network's own last layer takes.
    network = snapshot.network
    embed = keras.Model(network.input, network.get_layer("scores").input)
    for images, _, names in inputs.named_batches():
        for name, wanted in zip(names.numpy(), embed(np.float32(images)).numpy(), strict=True):
            found = answers[f"{colors}/test/{name.decode()}"]["embedding"]
            assert found == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("predict", 2, "path"),
        ("predict README.md --threshold=0.5 --threshold_precision=0.9", 2, "threshold_precision"),
        ("predict no_such_place", 3, "no_such_place"),
        ("predict README.md --ensemble=docs", 4, "docs"),
        ("export --export_formats=saved_model,coreml", 2, "'coreml'"),
        ("export --export_formats=litert --embedding", 2, "--no_embedding"),
        ("export --export_name=../x", 2, "export_name '../x'"),
        ("export --export_name=..", 2, "export_name '..'"),
        ("export --export_name=$(x)", 2, "export_name '$(x)'"),
        ("export --export_formats=", 2, "export_formats"),
        ("export --threshold=0", 2, "threshold has no effect on export"),
        ("export --threshold_precision=0.9", 2, "threshold_precision has no effect on export"),
        ("explain --threshold=0.5", 2, "threshold has no effect on explain"),
        ("explain --unknown_rate=0.05", 2, "unknown_rate has no effect on explain"),
        ("predict README.md --unknown_rate=2", 2, "unknown_rate"),
        ("explain --calibrate", 2, "calibrate has no effect on explain"),
        ("export --checkpoint=no_such", 4, "no_such"),
        ("export --checkpoint=x --ensemble=y", 2, "checkpoint and ensemble"),
    ],
)
def test_usage_errors_are_one_line(capsys, snapshot_run, monkeypatch, arguments, code, text):
    monkeypatch.chdir(ROOT)
    found, out, err = call(capsys, *arguments.split(), *snapshot_run.options)
    assert (found, out) == (code, "")
    assert text in err
    assert err.count("\n") == 1


def test_predict_with_a_threshold_refuses_data_of_other_classes(
    capsys, snapshot_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    for split in ("train", "validation"):
        write_colors(tmp_path / split, 1)
        (tmp_path / split / "red").rename(tmp_path / split / "rose")
        convert(tmp_path / split, tmp_path, split)
    options = [*snapshot_run.options, "--threshold_precision=0.5"]
    options[options.index("--data_dir") + 1] = str(tmp_path)
    code, _, err = call(capsys, "predict", "README.md", *options)
    assert code == 4
    assert "'red'" in err


def test_evaluate_slices_and_corruptions(capsys, snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    shutil.copytree(snapshot_run.folder, folder)
    options = [*snapshot_run.options, "--validation_name=v1.2", "--max_eval_steps=1"]
    options[options.index("--run_dir") + 1] = str(folder)
    table = tmp_path / "attributes.csv"
    table.write_text("file,place\nblue/000.png,in\ngreen/000.png,out\nelsewhere.png,out\n")
    more = [f"--slices={table}", "--corruptions", "--cache=memory"]
    code, out, err = call(capsys, "evaluate", *options, *more)
    assert code == 0, err
    assert "elsewhere.png" in err
    assert "mean corruption error" in err
    found = json.loads(out)
    stored = json.loads((folder / "evaluation" / "v1.2.json").read_text())
    assert stored["slices"] == found["slices"]
    assert {"place", "brightness"} <= {row["attribute"] for row in found["slices"]}
    assert all(row["images"] < found["images"] == 16 for row in found["slices"])
    assert found["corruptions"]["clean_accuracy"] == found["accuracy"]
    names = {each.name.removeprefix("v1.2") for each in (folder / "evaluation").glob("v1.2*")}
    tables = (".images.csv", ".slices.csv", ".corruptions.csv", ".corruptions.svg")
    assert names == {".json", ".html", *tables}
    page = (folder / "evaluation" / "v1.2.html").read_text()
    for heading in ("Slices, weakest first", "Corrupted images"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("accuracy on corrupted images") == 1, "the chart"

    table.write_text("name,place\n")
    code, out, err = call(capsys, "evaluate", *options, f"--slices={table}")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "'file'" in err
    # Without them, tables of an earlier evaluation don't stay beside the new one.
    code, out, err = call(capsys, "evaluate", *options)
    assert code == 0, err
    names = {each.name.removeprefix("v1.2") for each in (folder / "evaluation").glob("v1.2*")}
    assert names == {".json", ".html", ".images.csv"}


@pytest.mark.slow
def test_commands_trace_without_temporary_files(options, monkeypatch):
    # AutoGraph imports each function that it converts from a file, which a killed process leaves.
    def generated():
        return {each for each in sys.modules if each.startswith("__autograph_generated_file")}

    before = generated()
    run.main([*(each for each in options if each != "--no-report"), "--max_train_steps=1"])
    for command in ("evaluate", "explain", "describe", "preview"):
        run.main([command, *options])
    assert generated() == before


def test_pictures_of_other_networks_stay_out_of_a_run(capsys, snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "run"
    shutil.copytree(snapshot_run.folder, folder)
    before = {each.name for each in folder.iterdir()}
    # The run's own settings count, not the defaults: 8 x 8 pixels, not 224 x 224.
    code, out, err = call(capsys, "describe", "--run_dir", str(folder))
    assert code == 0, err
    assert "4 x 4 x 32" in out
    assert {each.name for each in folder.iterdir()} == before | {"network.svg"}
    drawn = (folder / "network.svg").read_bytes()
    code, out, err = call(capsys, "describe", "--run_dir", str(folder), "--width", "5")
    assert code == 0, err
    assert (folder / "network.svg").read_bytes() == drawn
    assert (tmp_path / "run-preview" / "network.svg").read_bytes() != drawn
    for more, place in ((), folder), (("--augmentations", "flip=0.25"), tmp_path / "run-preview"):
        code, out, err = call(capsys, "preview", "--run_dir", str(folder), *more)
        assert code == 0, err
        assert out.splitlines()[-1] == str(place / "preview.png")


def test_follow_run_goes_without_one(snapshot_run, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = read_settings(["preview", "--run_dir", str(tmp_path)], run.COMMANDS)
    assert follow_run(settings) == (settings, tmp_path)
    shutil.copytree(snapshot_run.folder / "best", tmp_path / "best")
    (tmp_path / "best" / "project.yaml").write_text("default: {removed_setting: 1}\n")
    assert follow_run(settings) == (settings, tmp_path.with_name(f"{tmp_path.name}-preview"))
