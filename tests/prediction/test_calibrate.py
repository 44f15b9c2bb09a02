import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.evaluation.calibration import fit_temperature
from library.inputs.batching import without_autotune
from library.models.scores import MULTI_LABEL
from library.prediction.calibrate import fit
from tests.prediction.test_predictor import make, scores_of

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)


class Validation:
    """Sixty pictures whose labels the network often, not always, gets right."""

    def __init__(self, labels):
        self.labels = labels

    def named_batches(self):
        names = [f"{number}.png" for number in range(len(PIXELS))]
        return without_autotune(
            tf.data.Dataset.from_tensor_slices((PIXELS, self.labels, names))
        ).batch(16)


@pytest.fixture
def snapshot():
    snapshot = make()
    kernel = snapshot.network.layers[-1].kernel
    kernel.assign(20 * kernel)  # Too sure of itself.
    return snapshot


@pytest.fixture
def labels(snapshot):
    labels = scores_of(snapshot, PIXELS).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    return labels


def test_nothing_asked_for_leaves_the_snapshot_as_it_is(snapshot, labels):
    said = []
    assert fit(snapshot, Validation(labels), said.append) == (snapshot, None, None)
    assert not said


def test_the_temperature_divides_the_scores_and_the_threshold_is_of_what_they_become(
    snapshot, labels
):
    said = []
    fitted = fit(snapshot, Validation(labels), said.append, calibrate=True, precision=0.75)
    scores = scores_of(snapshot, PIXELS)
    assert fitted.temperature == pytest.approx(fit_temperature(scores, labels))
    assert fitted.temperature > 1
    divided = scores_of(fitted.snapshot, PIXELS)
    assert np.allclose(divided, scores / fitted.temperature, atol=1e-5)
    certainty = keras.ops.convert_to_numpy(keras.ops.softmax(divided)).max(1)
    is_right = scores.argmax(1) == labels
    assert is_right[certainty >= fitted.threshold - 1e-6].mean() >= 0.75
    assert said[0] == f"temperature {fitted.temperature:.4f}"
    assert said[1].startswith(f"threshold {fitted.threshold:.4f}: on validation, ")


def test_where_nothing_is_wrong_no_temperature_fits(snapshot):
    said, right = [], scores_of(snapshot, PIXELS).argmax(1)
    assert fit(snapshot, Validation(right), said.append, calibrate=True)[1] is None
    assert said == ["no temperature fits"]


def test_a_precision_is_for_one_class_an_image():
    multi_label = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    with pytest.raises(SettingsError, match="threshold_precision is for one class an image"):
        fit(make(head=MULTI_LABEL), Validation(multi_label), print, precision=0.9)
