import json

import numpy as np
import pytest
from sklearn import metrics

from library.evaluation.calibration import fit_temperature
from library.evaluation.metrics import MetricOptions, calibrate, measure
from library.evaluation.predictions import Predictions
from library.models.scores import to_probabilities

CLASSES = ("a", "b", "c", "none of it")


def predictions(count=300, *, multi_label=False, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    truth = np.eye(4, dtype=np.float32)[labels]
    if multi_label:
        truth[:, 0] = random.random(count) < 0.5
    scores = (random.normal(size=(count, 4)) * 2 + 2 * truth).astype(np.float32)
    probabilities = np.asarray(to_probabilities(scores, multi_label=multi_label))
    names = tuple(f"{number}.jpg" for number in range(count))
    return Predictions(scores, probabilities, truth if multi_label else labels, names, multi_label)


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
        assert low <= result[name] <= high, name
    row = result["classes"]["b"]
    assert row["images"] == (found.labels == 1).sum()
    assert row["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(found.labels == 1, found.probabilities[:, 1])
    )
    assert row["intervals"]["recall"][0] < row["recall"] < row["intervals"]["recall"][1]
    assert np.array(result["confusion_matrix"]).trace() == right.sum()


def test_a_class_that_is_absent_is_said_and_is_nowhere_nan():
    result = measure(predictions(), CLASSES, {}, MetricOptions(top_k=9, bootstrap_samples=20))
    assert result["absent"] == ["none of it"]
    assert result["top_k"] == 4
    assert result["top_k_accuracy"] == 1
    row = result["classes"]["none of it"]
    assert row["images"] == 0
    assert row["f1"] is row["roc_auc"] is row["intervals"]["f1"] is None
    json.dumps(result, allow_nan=False)


def test_one_image_and_no_resamples():
    result = measure(predictions(1), CLASSES, {"accuracy": np.ones(1)}, MetricOptions(2, 0))
    assert result["accuracy"] == 1
    assert result["intervals"] == {}
    assert result["macro_roc_auc"] is None
    json.dumps(result, allow_nan=False)


def test_several_labels():
    found = predictions(multi_label=True)
    guesses = found.probabilities >= 0.5
    result = measure(found, CLASSES, {}, MetricOptions(bootstrap_samples=10))
    assert result["exact_match"] == metrics.accuracy_score(found.labels, guesses)
    expected = metrics.f1_score(found.labels[:, :3], guesses[:, :3], average="macro")
    assert result["macro_f1"] == pytest.approx(expected)
    assert "confusion_matrix" not in result
    assert "top_k_accuracy" not in result


def losses_of(found):
    def losses(scores):
        probabilities = to_probabilities(scores).numpy()
        return -np.log(probabilities[np.arange(len(found)), found.labels])

    return losses


def test_calibration_is_fitted_elsewhere_and_applied_here():
    found, validation = predictions(), predictions(2000, seed=1)
    measured = measure(found, CLASSES, {}, MetricOptions(5, 0))
    result = calibrate(measured, found, validation, losses_of(found), MetricOptions(5, 100))
    temperature = result["temperature"]
    assert temperature == fit_temperature(validation.scores, validation.labels) > 1
    expected = losses_of(found)(found.scores / np.float32(temperature)).mean()
    assert result["calibrated_loss"] == pytest.approx(expected, rel=1e-6)
    assert 0 < result["calibrated_ece"] < result["ece"]
    assert not result["cross_fitted"]
    assert set(result["intervals"]) == {"calibrated_loss", "calibrated_ece"}
    for name, (low, high) in result["intervals"].items():
        assert low <= result[name] <= high, name
        assert low < high

    sure = Predictions(9 * np.eye(4), np.eye(4), np.arange(4), tuple("abcd"))
    result = calibrate(measured, found, sure, losses_of(found))
    assert [result[name] for name in ("temperature", "calibrated_loss", "calibrated_ece")] == [
        None,
        None,
        None,
    ]


def test_no_image_is_measured_with_the_temperature_fitted_on_it():
    found = predictions(41)
    measured = measure(found, CLASSES, {}, MetricOptions(5, 0))
    result = calibrate(measured, found, found, losses_of(found), MetricOptions(5, 0))
    assert result["cross_fitted"]
    assert result["temperature"] == fit_temperature(found.scores, found.labels)
    even, odd = (fit_temperature(found.scores[n::2], found.labels[n::2]) for n in (0, 1))
    cooled = found.scores.copy()
    cooled[0::2] /= np.float32(odd)
    cooled[1::2] /= np.float32(even)
    assert result["calibrated_loss"] == pytest.approx(losses_of(found)(cooled).mean(), rel=1e-6)
    # So it is worse than it looks on the images themselves.
    same = losses_of(found)(found.scores / np.float32(result["temperature"])).mean()
    assert result["calibrated_loss"] > same

    # Half of these are all right: no temperature can be told from them.
    sure = Predictions(
        9 * np.eye(4)[[0, 1, 2, 3]], np.eye(4), np.array([1, 1, 0, 3]), tuple("abcd")
    )
    result = calibrate(measured, sure, sure, losses_of(sure))
    assert result["temperature"] > 0
    assert result["calibrated_loss"] is None


def test_of_many_classes_the_cells_that_hold_images_are_told():
    found = predictions(20)
    scores = np.pad(found.scores, ((0, 0), (0, 300)), constant_values=-9)
    many = Predictions(scores, to_probabilities(scores).numpy(), found.labels, found.names)
    result = measure(many, [*map(str, range(304))], {}, MetricOptions(5, 0))
    assert "confusion_matrix" not in result
    matrix = np.zeros((4, 4), int)
    for true, guessed, images in result["confusion_cells"]:
        matrix[true, guessed] += images
    assert matrix.tolist() == measure(found, CLASSES, {}, MetricOptions(5, 0))["confusion_matrix"]
