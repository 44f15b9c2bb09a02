"""Bootstrap intervals, calibration error and temperature."""

import numpy as np
import pytest
import scipy
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from library.evaluation.calibration import BINS, CalibrationBins, fit_temperature
from library.evaluation.intervals import (
    bootstrap_weights,
    calibration_error_interval,
    f1_interval,
    mean_interval,
    unit_weights,
    wilson_interval,
)


def test_bootstrap_weights_sum_to_image_count():
    drawn = np.concatenate([*bootstrap_weights(5000, 1000, seed=3)], axis=1)
    assert drawn.shape == (5000, 1000)
    assert (drawn.sum(0, dtype=int) == 5000).all()
    # The share never drawn is (1 - 1/n)^n.
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.001)
    again = np.concatenate([*bootstrap_weights(5000, 1000, seed=3)], axis=1)
    assert (drawn == again).all()
    assert unit_weights(3).tolist() == [[1], [1], [1]]


def resampled_means(values, samples):
    drawn = [values @ weights / len(values) for weights in bootstrap_weights(len(values), samples)]
    return np.concatenate(drawn)


def test_mean_interval_matches_theory():
    values = np.random.default_rng(0).normal(size=2000)
    low, high = mean_interval(values, resampled_means(values, 4000))
    wanted = 1.96 * values.std() / 2000**0.5
    assert high - values.mean() == pytest.approx(wanted, rel=0.07)
    assert values.mean() - low == pytest.approx(wanted, rel=0.07)


def test_mean_interval_matches_scipy():
    values = np.random.default_rng(0).exponential(size=60)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    found = mean_interval(values, resampled_means(values, 20_000))
    assert found == pytest.approx(expected, rel=0.02)


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


def test_mean_interval_contains_its_mean():
    assert mean_interval(np.array([1.0, 5.0]), np.array([1.0, 2.0]))[1] == 3
    for means in (np.ones(1), np.ones(9)):
        assert mean_interval(np.array([1.0, 1.0]), means) is None, "that tells nothing"


def test_wilson_interval_matches_published_examples():
    # Newcombe 1998, doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I.
    cases = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]
    for successes, count, *expected in [*cases, (1, 29, 0.0061, 0.1718)]:
        found = wilson_interval(successes / count, count)
        assert found == pytest.approx(expected, abs=5e-5)
    assert wilson_interval(1.0, 45) == (pytest.approx(0.9213, abs=5e-5), 1.0)
    assert wilson_interval(0.0, 0) == pytest.approx((0, 1))
    assert np.isnan(wilson_interval(np.nan, 3)).all()


def test_f1_interval_contains_its_metric():
    f1, count = np.array([0.0, 0.5, 1.0, np.nan]), np.array([4, 9, 4, 4])
    low, high = f1_interval(f1, count)
    assert (low[:3] <= f1[:3]).all()
    assert (high[:3] >= f1[:3]).all()
    assert low[0] == 0 < high[0] < 1 == high[2]
    assert np.isnan(low[3])


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
    repeated = np.repeat(np.arange(2000), weights[:, 1].astype(int))
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
