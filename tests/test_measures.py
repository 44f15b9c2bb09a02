import json

import numpy as np
import pytest
from sklearn import metrics

from library.evaluation.measures import Asked, calibrate, measure
from library.evaluation.predictions import Predictions
from library.evaluation.probabilities import to_probabilities

CLASSES = ("a", "b", "c", "none of it")


def predictions(count=300, *, several=False, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    truth = np.eye(4, dtype=np.float32)[labels]
    if several:
        truth[:, 0] = random.random(count) < 0.5
    scores = (random.normal(size=(count, 4)) * 2 + 2 * truth).astype(np.float32)
    probabilities = np.asarray(to_probabilities(scores, several=several))
    names = tuple(f"{number}.jpg" for number in range(count))
    return Predictions(scores, probabilities, truth if several else labels, names, several)


def test_every_measure_has_an_interval_that_holds_it():
    found = predictions()
    right = found.classes == found.labels
    result = measure(
        found, CLASSES, {"loss": -np.log(found.probabilities[:, 0]), "accuracy": right}
    )
    assert result["accuracy"] == metrics.accuracy_score(found.labels, found.classes)
    overall = [name for name, value in result.items() if isinstance(value, float)]
    assert {"loss", "top_k_accuracy", "macro_f1", "weighted_roc_auc", "ece"} <= {*overall}
    for name in set(overall) - {"confidence"}:
        low, high = result["intervals"][name]
        # ECE is never negative, so resamples tend to more of it.
        assert low <= result[name] + (name == "ece") * 0.05 <= high + 0.05, name
    row = result["classes"]["b"]
    assert row["images"] == (found.labels == 1).sum()
    assert row["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(found.labels == 1, found.probabilities[:, 1])
    )
    assert row["intervals"]["recall"][0] < row["recall"] < row["intervals"]["recall"][1]
    assert np.array(result["confusion_matrix"]).trace() == right.sum()


def test_a_class_that_is_absent_is_said_and_is_nowhere_nan():
    result = measure(predictions(), CLASSES, {}, Asked(top_k=9, bootstrap_samples=20))
    assert result["absent"] == ["none of it"]
    assert result["top_k"] == 4
    assert result["top_k_accuracy"] == 1
    row = result["classes"]["none of it"]
    assert row["images"] == 0
    assert row["f1"] is row["roc_auc"] is row["intervals"]["f1"] is None
    json.dumps(result, allow_nan=False)


def test_one_image_and_no_resamples():
    result = measure(predictions(1), CLASSES, {"accuracy": np.ones(1)}, Asked(2, 0))
    assert result["accuracy"] == 1
    assert result["intervals"] == {}
    assert result["macro_roc_auc"] is None
    json.dumps(result, allow_nan=False)


def test_several_labels():
    found = predictions(several=True)
    guesses = found.probabilities >= 0.5
    result = measure(found, CLASSES, {}, Asked(bootstrap_samples=10))
    assert result["exact_match"] == metrics.accuracy_score(found.labels, guesses)
    expected = metrics.f1_score(found.labels[:, :3], guesses[:, :3], average="macro")
    assert result["macro_f1"] == pytest.approx(expected)
    assert "confusion_matrix" not in result
    assert "top_k_accuracy" not in result


def test_calibration_is_fitted_elsewhere_and_applied_here():
    found, validation = predictions(), predictions(2000, seed=1)
    losses = {}

    def loss(scores):
        probabilities = to_probabilities(scores).numpy()
        losses["mean"] = -np.log(probabilities[np.arange(300), found.labels]).mean()
        return losses["mean"]

    result = calibrate(found, validation, loss)
    assert result["temperature"] > 1
    assert result["calibrated_loss"] == losses["mean"]
    assert 0 < result["calibrated_ece"] < measure(found, CLASSES, {}, Asked(5, 0))["ece"]

    sure = Predictions(9 * np.eye(4), np.eye(4), np.arange(4), tuple("abcd"))
    assert set(calibrate(found, sure, loss).values()) == {None}
