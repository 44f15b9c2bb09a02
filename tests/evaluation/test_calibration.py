"""Bootstrap intervals, calibration error and temperature."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from library.evaluation.bootstrap import (
    bootstrap_weights,
    calibration_error_interval,
    percentile_interval,
    unit_weights,
)
from library.evaluation.calibration import BINS, CalibrationBins, fit_temperature


def test_bootstrap_weights_sum_to_image_count():
    drawn = np.concatenate([*bootstrap_weights(5000, 1000, seed=3)], axis=1)
    assert drawn.shape == (5000, 1000)
    assert (drawn.sum(0, dtype=int) == 5000).all()
    # The share never drawn is (1 - 1/n)^n.
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.001)
    again = np.concatenate([*bootstrap_weights(5000, 1000, seed=3)], axis=1)
    assert (drawn == again).all()
    assert unit_weights(3).tolist() == [[1], [1], [1]]


def test_percentile_interval_of_mean_matches_theory():
    values = np.random.default_rng(0).normal(size=2000)
    means = np.concatenate([values @ weights / 2000 for weights in bootstrap_weights(2000, 4000)])
    low, high = percentile_interval(means)
    wanted = 1.96 * values.std() / 2000**0.5
    assert high - values.mean() == pytest.approx(wanted, rel=0.07)
    assert values.mean() - low == pytest.approx(wanted, rel=0.07)


@pytest.mark.parametrize(("sharpness", "min_contained"), [(1.0, 58), (1.5, 52)])
def test_calibration_error_interval_contains_true_error(sharpness, min_contained):
    """About 95 % of 60 splits should; a huge split tells the true error."""

    def random_bins(seed, count):
        random = np.random.default_rng(seed)
        confidence = random.uniform(0.5, 1, count)
        predicted = confidence**sharpness / (confidence**sharpness + (1 - confidence) ** sharpness)
        labels = (random.random(count) > confidence).astype(int)
        return CalibrationBins(np.stack([predicted, 1 - predicted], axis=1), labels)

    true = 0.0 if sharpness == 1 else random_bins(99, 200_000).error(unit_weights(200_000))[0]
    contained = 0
    for seed in range(60):
        found = random_bins(seed, 400)
        value = found.error(unit_weights(400))[0]
        drawn = np.concatenate([found.error(each) for each in bootstrap_weights(400, 200)])
        low, high = calibration_error_interval(value, drawn)
        assert low <= value <= high
        contained += low <= true <= high
    assert contained >= min_contained


def test_percentile_interval_skips_nan():
    assert percentile_interval(np.array([np.nan, 1.0, np.nan])) == (1.0, 1.0)
    assert percentile_interval(np.array([np.nan])) is None
    assert percentile_interval(np.array([])) is None


RANDOM = np.random.default_rng(0)


def softmax(scores):
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def drawn(scores):
    """Draw labels whose probabilities are the softmax of the scores."""
    return (softmax(scores).cumsum(1) < RANDOM.random((len(scores), 1))).sum(1)


def test_bins_match_scikit_learn():
    scores = 3 * RANDOM.normal(size=(2000, 4))
    probabilities, labels = softmax(scores), RANDOM.integers(0, 4, 2000)
    bins = CalibrationBins(probabilities, labels)
    right, confidence = probabilities.argmax(1) == labels, probabilities.max(1)
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS)
    rows = bins.to_json()
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracies)
    assert [row["confidence"] for row in rows] == pytest.approx(confidences)
    shares = np.array([row["guesses"] for row in rows]) / 2000
    expected = (shares * np.abs(accuracies - confidences)).sum()
    assert bins.error(unit_weights(2000))[0] == pytest.approx(expected)

    (weights,) = bootstrap_weights(2000, 2)
    repeated = np.repeat(np.arange(2000), weights[:, 1])
    again = CalibrationBins(probabilities[repeated], labels[repeated]).error(
        unit_weights(len(repeated))
    )
    assert bins.error(weights)[1] == pytest.approx(again[0])


def test_calibration_error_of_certain_predictions():
    confidence = np.eye(3)[[0, 1, 2]]
    assert CalibrationBins(confidence, np.array([0, 1, 2])).error(unit_weights(3)) == [0]
    assert CalibrationBins(confidence, np.array([1, 2, 0])).error(unit_weights(3)) == [1]
    assert CalibrationBins(confidence, confidence).to_json() == [
        {"from": 0.0, "to": 1 / BINS, "guesses": 6, "confidence": 0.0, "accuracy": 0.0},
        {"from": 14 / BINS, "to": 1.0, "guesses": 3, "confidence": 1.0, "accuracy": 1.0},
    ]
    assert CalibrationBins(np.zeros((0, 3)), np.zeros(0, int)).error(unit_weights(0)) == [0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fit_temperature_recovers_scale(temperature):
    true = 2 * RANDOM.normal(size=(20_000, 5))
    labels = drawn(true)
    found = fit_temperature((true * temperature).astype(np.float32), labels)
    assert found == pytest.approx(temperature, rel=0.05)
    losses = [
        log_loss(labels, softmax(true * temperature / each))
        for each in (found, found * 1.01, found / 1.01)
    ]
    assert losses[0] == min(losses)


def test_fit_temperature_multi_label():
    true = 2 * RANDOM.normal(size=(20_000, 3))
    labels = (RANDOM.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.float32)
    assert fit_temperature(2 * true, labels) == pytest.approx(2, rel=0.05)


def test_fit_temperature_without_optimum():
    assert fit_temperature(np.array([[3.0, 0.0], [-1.0, 0.5]]), np.array([0, 1])) is None
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) is None
    # Scores that are all equal have no best temperature either.
    assert fit_temperature(np.zeros((2, 2)), np.array([0, 1])) is None
