"""Evaluation of a network on a split: predictions, metrics, their summary and table."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.dataset.splits import read_splits
from library.errors import DataError, DivergedError
from library.evaluation.evaluate import (
    describe_scope,
    evaluate,
    summarize,
    warn_on_error,
    write_summary,
)
from library.evaluation.metrics import EvaluationOptions
from library.evaluation.predictions import predict_batches
from library.evaluation.table import format_metrics, format_number, metric_label, overall_metrics
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source, without_autotune
from library.models.scores import MULTI_LABEL
from library.saving.snapshots import Snapshot
from library.training.evaluator import Evaluator
from project.inputs import EvaluationPipeline
from project.objective import Objective

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (10, 4, 4, 1), np.uint8)
LABELS = RANDOM.integers(0, 3, 10)
NAMES = [f"cat/{number}.png" for number in range(9)] + [b"cat/\xff.png"]
FORMAT = ImageFormat(8, 3)
OPTIONS = EvaluationOptions(top_k=5, bootstrap_samples=20)


def make_network(shape=(4, 4, 1), name="scores", bias="zeros"):
    keras.utils.set_random_seed(1)
    pixels = keras.Input(shape)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(3, name=name, bias_initializer=bias)(flat))


def batches(labels=LABELS, size=4):
    return without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES, labels, NAMES))).batch(size)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_predict_batches_of_any_size(size):
    network = make_network()
    found = predict_batches(network, batches(size=size))
    scores = network(IMAGES.astype(np.float32)).numpy()
    assert len(found) == 10
    assert found.scores == pytest.approx(scores, abs=1e-6)
    assert found.probabilities() == pytest.approx(keras.ops.softmax(scores).numpy(), abs=1e-6)
    assert (found.classes == scores.argmax(1)).all()
    assert (found.labels == LABELS).all()
    assert found.names == (*NAMES[:9], "cat/\ufffd.png")
    assert found.probabilities().dtype == np.float32
    assert not found.multi_label


def test_predict_batches_stops_after_max_steps():
    assert len(predict_batches(make_network(), batches(), 2)) == 8
    assert predict_batches(make_network(), batches().take(0)).scores.shape == (0, 3)


def test_predict_batches_multi_label():
    labels = RANDOM.integers(0, 2, (10, 3)).astype(np.float32)
    found = predict_batches(make_network(name=MULTI_LABEL), batches(labels))
    assert found.multi_label
    assert np.array_equal(found.labels, labels)
    assert found.probabilities() == pytest.approx(1 / (1 + np.exp(-found.scores)), abs=1e-6)


@pytest.fixture(scope="module")
def splits(colors):
    return read_splits(colors, "validation", "test")


@pytest.fixture(scope="module")
def snapshot(splits):
    network = make_network(FORMAT.shape)
    return Snapshot(network, splits[1].classes, {"epoch": 3}, Path("out/best"))


def inputs(split):
    return EvaluationPipeline(make_source(split), FORMAT, 4)


def test_evaluate_matches_training_metrics(splits, snapshot):
    validation, test = (inputs(each) for each in splits)
    result = evaluate(snapshot, test, Objective(), OPTIONS, validation)
    expected, images = Evaluator(snapshot.network, Objective()).evaluate(test)
    assert len(result.predictions) == images == 18
    assert result.metrics["accuracy"] == expected["accuracy"]
    assert result.metrics["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    # An untrained network is overconfident.
    assert result.metrics["calibrated_loss"] < result.metrics["loss"]


def test_evaluate_refuses_empty_split(splits, snapshot):
    with pytest.raises(DataError):
        evaluate(snapshot, inputs(splits[1]), Objective(), EvaluationOptions(5, 20, max_steps=0))


def test_evaluate_refuses_diverged_network(splits, snapshot):
    network = make_network(FORMAT.shape, bias=keras.initializers.Constant(np.nan))
    diverged = Snapshot(network, snapshot.classes, {}, Path("out"))
    with pytest.raises(DivergedError, match=r"NaN .* 18 of 18 images"):
        evaluate(diverged, inputs(splits[1]), Objective(), OPTIONS)


def test_summary_tells_what_was_evaluated(splits, snapshot, tmp_path):
    result = evaluate(
        snapshot, inputs(splits[1]), Objective(), EvaluationOptions(5, 20, max_steps=2)
    )
    assert "temperature" not in result.metrics
    summary = summarize(result, splits[1], data_dir="elsewhere", is_own_data=False)
    assert (summary["split"], summary["images"], summary["images_in_split"]) == ("test", 8, 18)
    assert summary["data"] == {
        "folder": "elsewhere",
        "fingerprint": splits[1].fingerprint,
        "is_own": False,
    }
    assert (summary["snapshot"], summary["epoch"], summary["views"]) == ("out/best", 3, 1)
    assert [*describe_scope(summary)] == ["first 8 of 18 images", "data from elsewhere"]
    write_summary(tmp_path / "test.json", summary)
    stored = json.loads((tmp_path / "test.json").read_text())
    assert stored == json.loads(json.dumps(summary, allow_nan=False))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device", "x/a.html"), "No space left on device: x/a.html"),
        (ValueError("first line\nsecond"), "first line"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_warn_on_error(capsys, error, reason):
    with warn_on_error("report.html"):
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert line.endswith(f"report.html ({reason})")


def test_scope_of_ensemble():
    summary = {"members": [{}, {}], "views": 2, "images": 9, "images_in_split": 9}
    assert [*describe_scope({**summary, "data": {"is_own": True}})] == [
        "mean of 2 networks",
        "mean of 2 views of each image",
    ]


ROW = {"images": 1200, "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "roc_auc": 0.9, "pr_auc": None}
RESULT = {
    "loss": 0.25,
    "top_k_accuracy": 1.0,
    "macro_roc_auc": None,
    "top_k": 5,
    "intervals": {"loss": (0.2, 0.3), "macro_roc_auc": None},
    "confidence": 0.95,
    "absent": [],
    "classes": {"cat": ROW},
    "temperature": 1.5,
    "calibrated_ece": 0.01,
}


def test_format_metrics():
    lines = [*format_metrics(RESULT)]
    assert lines[0] == "metric                               value      95% interval"
    assert "loss                                0.2500  0.2000 to 0.3000" in lines
    assert "top-5 accuracy                      1.0000" in lines
    assert "macro ROC AUC                            -" in lines
    assert "temperature                         1.5000" in lines
    assert lines[-2:] == [
        "class  images  precision  recall      F1  ROC AUC  PR AUC",
        "cat     1,200     0.5000  1.0000  0.6667   0.9000       -",
    ]
    assert [label for label, _, _ in overall_metrics(RESULT)][
        -1
    ] == "calibration error with temperature"


def test_format_metrics_lists_absent_classes():
    rows = {"a\nb": ROW, "gone": {**ROW, "f1": None}}
    lines = [*format_metrics({**RESULT, "classes": rows, "absent": ["gone"]})]
    assert any(line.startswith("a\\nb ") for line in lines)
    assert lines[-1].endswith(": gone")


def test_format_metrics_shows_classes_with_lowest_f1():
    rows = {f"class {n}": {**ROW, "f1": 1 - n / 100} for n in range(40)}
    lines = [*format_metrics({**RESULT, "classes": rows, "absent": [*rows][:12]})]
    assert any("30 of 40" in line for line in lines)
    assert any(line.startswith("class 39 ") for line in lines)
    assert not any(line.startswith("class 3 ") for line in lines)
    assert lines[-1].endswith("class 9 and 2 more")


def test_metric_label_and_format_number():
    assert metric_label("weighted_pr_auc") == "weighted PR AUC"
    assert metric_label("exact_match") == "exact match"
    assert format_number(0.12345) == "0.1235"
