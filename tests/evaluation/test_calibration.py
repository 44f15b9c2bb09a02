import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from library.evaluation.bootstrap import once, resamples
from library.evaluation.calibration import BINS, Bins, fit_temperature

RANDOM = np.random.default_rng(0)


def softmax(scores):
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def drawn(scores):
    """Labels of which the scores' softmax is the very truth."""
    return (softmax(scores).cumsum(1) < RANDOM.random((len(scores), 1))).sum(1)


def test_bins_are_those_of_scikit_learn_and_ece_is_their_mean_distance():
    scores = 3 * RANDOM.normal(size=(2000, 4))
    probabilities, labels = softmax(scores), RANDOM.integers(0, 4, 2000)
    bins = Bins(probabilities, labels)
    right, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS)
    rows = bins.rows()
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracies)
    assert [row["confidence"] for row in rows] == pytest.approx(confidences)
    shares = np.array([row["guesses"] for row in rows]) / 2000
    expected = (shares * np.abs(accuracies - confidences)).sum()
    assert bins.error(once(2000))[0] == pytest.approx(expected)

    (weights,) = resamples(2000, 2)
    repeated = np.repeat(np.arange(2000), weights[:, 1])
    again = Bins(probabilities[repeated], labels[repeated]).error(once(len(repeated)))
    assert bins.error(weights)[1] == pytest.approx(again[0])


def test_sure_and_right_is_no_error_and_sure_and_wrong_the_largest():
    sure = np.eye(3)[[0, 1, 2]]
    assert Bins(sure, np.array([0, 1, 2])).error(once(3)) == [0]
    assert Bins(sure, np.array([1, 2, 0])).error(once(3)) == [1]
    assert Bins(sure, sure).rows() == [
        {"from": 0.0, "to": 1 / BINS, "guesses": 6, "confidence": 0.0, "accuracy": 0.0},
        {"from": 14 / BINS, "to": 1.0, "guesses": 3, "confidence": 1.0, "accuracy": 1.0},
    ]
    assert Bins(np.zeros((0, 3)), np.zeros(0, int)).error(once(0)) == [0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_the_scores_were_heated_by_is_found(temperature):
    true = 2 * RANDOM.normal(size=(20_000, 5))
    labels = drawn(true)
    found = fit_temperature((true * temperature).astype(np.float32), labels)
    assert found == pytest.approx(temperature, rel=0.05)
    losses = [
        log_loss(labels, softmax(true * temperature / each))
        for each in (found, found * 1.01, found / 1.01)
    ]
    assert losses[0] == min(losses)


def test_of_several_labels_too():
    true = 2 * RANDOM.normal(size=(20_000, 3))
    labels = (RANDOM.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.float32)
    assert fit_temperature(2 * true, labels) == pytest.approx(2, rel=0.05)


def test_where_all_is_right_there_is_no_best_temperature():
    assert fit_temperature(np.array([[3.0, 0.0], [-1.0, 0.5]]), np.array([0, 1])) is None
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) is None
    # Neither is there where the scores say nothing.
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) is None
