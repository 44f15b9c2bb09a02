"""run.py trains and evaluates on TFRecord files of other programs, named by train_metadata."""

import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import run
from library.errors import run_main
from tests.conftest import ROOT
from tests.helpers.foreign_records import write_examples


def call(capsys, *arguments):
    """Run in this process. Return (exit code, stdout, stderr)."""
    code = run_main(run.main, list(map(str, arguments)), "run.py")
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def png(color, random):
    pixels = np.clip(np.array(color) + random.integers(-40, 40, (10, 10, 3)), 0, 255)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files in the layout of TensorFlow's tutorial, with labels that count from 1."""
    folder = tmp_path_factory.mktemp("tfrecords")
    random = np.random.default_rng(0)
    colors = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]
    for name, count in (("train-0", 15), ("train-1", 12), ("eval-0", 9)):
        rows = [
            {"image_raw": png(colors[n % 3], random), "label": n % 3 + 1, "height": 10, "width": 10}
            for n in range(count)
        ]
        write_examples(folder / name, *rows)
    return folder


@pytest.fixture
def options(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return [
        *("--train_metadata", folder / "train-0", folder / "train-1"),
        *("--eval_metadata", folder / "eval*", "--run_dir", tmp_path / "run", "--no-report"),
        *(
            "--model",
            "simple",
            "--image_size",
            8,
            "--batch_size",
            9,
            "--learning_rate",
            0.01,
            "--dropout_rate",
            0.1,
        ),
    ]


@pytest.mark.slow
def test_train_evaluate_and_resume(capsys, options, tmp_path):
    code, out, err = call(capsys, *options, "--train_steps", 5, "--sync_replicas")
    assert code == 0, err
    assert "epoch 2/2" in err
    assert "27 images in 2 TFRecord files" in err
    assert "synchronous" in err
    assert json.loads(out)["step"] <= 5
    code, out, err = call(capsys, *options, "--train_steps", 7)
    assert code == 0, err
    assert "Resuming from" in err

    code, out, err = call(capsys, "evaluate", "--split", "validation", *options)
    assert code == 0, err
    result = json.loads(out)
    assert list(result["classes"]) == ["1", "2", "3"]
    assert result["images"] == 9
    assert result["data"]["is_own"]
    assert "train-0" in result["data"]["folder"]
    with (tmp_path / "run" / "evaluation" / "validation.images.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert names == [f"eval-0/{n}" for n in range(9)], "as conversion names such records"

    # The settings of the run name its data.
    files = (tmp_path / "run" / each for each in ("project.yaml", "hyperparameters.yaml"))
    given = zip(("--config_file", "--hyperparameter_file"), files, strict=True)
    words = [word for pair in given for word in pair]
    code, out, err = call(capsys, "evaluate", *words, "--split", "train")
    assert code == 0, err
    assert json.loads(out)["images"] == 27

    code, out, err = call(capsys, "predict", *words, options[1])
    assert code == 0, err
    assert len(out.splitlines()) == 16


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (["evaluate"], 2, r"split test: .*--split validation"),
        (["--eval_metadata="], 2, r"eval_metadata is missing"),
        (["--train_metadata="], 2, r"train_metadata is missing"),
        (["--train_metadata=nowhere/*"], 3, r"there are no files nowhere/\*"),
        (["--tfrecord_fields", "image=x"], 3, r"train-0: record 0 .*--tfrecord_fields image=NAME"),
    ],
)
def test_what_is_missing_is_named(capsys, options, arguments, exit_code, text):
    name = arguments[0].partition("=")[0]
    start = 0 if name == "--train_metadata" else 3 if name == "--eval_metadata" else None
    kept = options
    if start is not None:
        kept = options[3:] if start == 0 else [*options[:3], *options[5:]]
    code, _, err = call(capsys, *arguments, *kept)
    assert code == exit_code, err
    assert re.search(text, err)
