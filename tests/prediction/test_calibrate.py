import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError, UserError
from library.evaluation.calibration import fit_temperature
from library.inputs.examples import without_autotune
from library.models.scores import MULTI_LABEL
from library.prediction.calibrate import (
    CalibratedSnapshot,
    Threshold,
    calibrate,
    check_class_names,
    fit_threshold,
)
from tests.helpers.networks import make_snapshot, scores_of, softmax

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)


class Validation:
    """Sixty images with given labels, as EvaluationPipeline."""

    def __init__(self, labels):
        self.labels = labels

    def named_batches(self):
        names = [f"{number}.png" for number in range(len(PIXELS))]
        return without_autotune(
            tf.data.Dataset.from_tensor_slices((PIXELS, self.labels, names))
        ).batch(16)


@pytest.fixture
def snapshot():
    """A snapshot that is too confident."""
    snapshot = make_snapshot()
    kernel = snapshot.network.layers[-1].kernel
    kernel.assign(20 * kernel)
    return snapshot


@pytest.fixture
def labels(snapshot):
    """Labels of which the snapshot predicts three of four."""
    labels = scores_of(snapshot, PIXELS).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    return labels


def test_calibrate_without_options_changes_nothing(snapshot, labels, capsys):
    found = calibrate(snapshot, Validation(labels))
    assert found == CalibratedSnapshot(snapshot, None, None)
    assert found.snapshot is snapshot
    assert capsys.readouterr().err == ""


def test_calibrate_fits_the_threshold_after_the_temperature(snapshot, labels, capsys):
    found = calibrate(snapshot, Validation(labels), with_temperature=True, precision=0.75)
    scores = scores_of(snapshot, PIXELS)
    assert found.temperature == pytest.approx(fit_temperature(scores, labels))
    assert found.temperature > 1
    divided = scores_of(found.snapshot, PIXELS)
    assert np.allclose(divided, scores / found.temperature, atol=1e-5)
    confidence = softmax(divided).max(1)
    is_correct = scores.argmax(1) == labels
    assert is_correct[confidence >= found.threshold - 1e-6].mean() >= 0.75
    logged = capsys.readouterr().err
    assert f"temperature {found.temperature:.4f}" in logged
    assert f"threshold {found.threshold:.4f}" in logged


def test_calibrate_has_no_temperature_if_all_predictions_are_correct(snapshot):
    labels = scores_of(snapshot, PIXELS).argmax(1)
    found = calibrate(snapshot, Validation(labels), with_temperature=True)
    assert found == CalibratedSnapshot(snapshot, None, None)


def test_calibrate_refuses_a_precision_for_multi_label_data():
    labels = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    with pytest.raises(SettingsError, match="threshold_precision"):
        calibrate(make_snapshot(head=MULTI_LABEL), Validation(labels), precision=0.9)


def lowest_threshold(probabilities, labels, precision):
    """Try every probability."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    return min(each for each in confidence if correct[confidence >= each].mean() >= precision)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("precision", [0.8, 0.9])
def test_fit_threshold_matches_brute_force(seed, precision):
    random = np.random.default_rng(seed)
    # Rounded, so that some are equal; and the more confident, the more often correct.
    probabilities = random.dirichlet([0.5] * 3, 400).round(2)
    is_correct = random.random(400) < probabilities.max(1)
    labels = (probabilities.argmax(1) + ~is_correct) % 3
    found = fit_threshold(probabilities, labels, precision)
    assert found.probability == lowest_threshold(probabilities, labels, precision)
    answered = probabilities.max(1) >= found.probability
    assert found.answered == answered.mean()
    assert found.precision == (probabilities.argmax(1) == labels)[answered].mean() >= precision


def test_fit_threshold_names_the_highest_precision_if_none_is_enough():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    with pytest.raises(UserError, match=r"0\.9 .*0\.5000.*--threshold_precision"):
        fit_threshold(probabilities, np.array([1, 0]), 0.9)


def test_fit_threshold_is_0_if_all_images_may_be_answered():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert fit_threshold(probabilities, np.array([0, 0]), 0.9) == Threshold(0.0, 1.0, 1.0)


def test_check_class_names_refuses_unknown():
    check_class_names(("Unknown", "cat"))
    with pytest.raises(SettingsError, match="'unknown'"):
        check_class_names(("cat", "unknown"))
