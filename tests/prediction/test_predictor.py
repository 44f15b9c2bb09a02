from pathlib import Path

import keras
import numpy as np

from library.models.scores import MULTI_LABEL
from library.prediction.predictor import Predictor
from library.saving.snapshots import Snapshot

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


def make(seed=0, classes=("cat", "dog", "eel"), size=8, head="scores", hidden=None):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((size, size, 3))
    scaled = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    if hidden:
        scaled = keras.layers.Dense(hidden, activation="relu")(scaled)
    scores = keras.layers.Dense(len(classes), name=head)(scaled)
    return Snapshot(keras.Model(pixels, scores), classes, {}, Path())


def softmax(scores):
    powers = np.exp(np.float64(scores) - np.max(scores, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def scores_of(snapshot, pixels=PIXELS):
    return snapshot.network(pixels.astype(np.float32)).numpy()


def test_probabilities_are_the_softmax_of_the_scores():
    snapshot = make()
    found = Predictor([snapshot]).probabilities(PIXELS)
    assert found.dtype == np.float32
    assert np.allclose(found, softmax(scores_of(snapshot)), atol=1e-6)
    probabilities, embeddings = Predictor([snapshot]).predict(PIXELS)
    assert np.array_equal(probabilities, found)
    assert embeddings.shape == (len(PIXELS), 0)


def test_classes_that_may_be_right_together_get_their_sigmoid_each():
    snapshot = make(head=MULTI_LABEL)
    predictor = Predictor([snapshot])
    assert predictor.multi_label
    expected = 1 / (1 + np.exp(-np.float64(scores_of(snapshot))))
    assert np.allclose(predictor.probabilities(PIXELS), expected, atol=1e-6)


def test_a_temperature_divides_the_scores():
    snapshot = make()
    found = Predictor([snapshot], temperatures=[2.5]).probabilities(PIXELS)
    assert np.allclose(found, softmax(scores_of(snapshot) / 2.5), atol=1e-6)


def test_several_views_and_networks_are_averaged():
    first, second = make(0), make(1)
    found = Predictor([first, second], views=2).probabilities(PIXELS)
    mirrored = PIXELS[:, :, ::-1]
    parts = [scores_of(each, pixels) for each in (first, second) for pixels in (PIXELS, mirrored)]
    assert np.allclose(found, np.mean([softmax(each) for each in parts], axis=0), atol=1e-6)
