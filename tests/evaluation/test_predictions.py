import keras
import numpy as np
import pytest
import tensorflow as tf

from library.evaluation.predictions import predict_batches
from library.inputs.batching import without_autotune
from library.models.scores import MULTI_LABEL

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (10, 4, 4, 1), np.uint8)
LABELS = RANDOM.integers(0, 3, 10)
NAMES = [f"cat/{number}.png" for number in range(9)] + [b"cat/\xff.png"]


def make_network(name="scores"):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(3, name=name)(flat))


def batches(labels=LABELS, size=4):
    return without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES, labels, NAMES))).batch(size)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_each_image_has_its_row_whatever_the_batches(size):
    network = make_network()
    found = predict_batches(network, batches(size=size))
    scores = network(IMAGES.astype(np.float32)).numpy()
    assert len(found) == 10
    assert found.scores == pytest.approx(scores, abs=1e-6)
    assert found.probabilities == pytest.approx(keras.ops.softmax(scores).numpy(), abs=1e-6)
    assert (found.classes == scores.argmax(1)).all()
    assert (found.labels == LABELS).all()
    assert found.names == (*NAMES[:9], "cat/\ufffd.png")
    assert found.probabilities.dtype == np.float32
    assert not found.multi_label


def test_no_more_steps_than_asked_for_and_none_at_all():
    assert len(predict_batches(make_network(), batches(), 2)) == 8
    assert predict_batches(make_network(), batches().take(0)).probabilities.shape == (0, 3)


def test_several_labels_are_rows_of_zeros_and_ones():
    labels = RANDOM.integers(0, 2, (10, 3)).astype(np.float32)
    found = predict_batches(make_network(MULTI_LABEL), batches(labels), temperature=2.0)
    assert found.multi_label
    assert np.array_equal(found.labels, labels)
    assert found.probabilities == pytest.approx(1 / (1 + np.exp(-found.scores / 2)), abs=1e-6)
