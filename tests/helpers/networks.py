"""Tiny snapshots with random weights, and what their networks should give."""

from pathlib import Path

import keras
import numpy as np

from library.saving.snapshots import Snapshot

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


def make_snapshot(seed=0, classes=("cat", "dog", "eel"), size=8, head="scores", hidden=None):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((size, size, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    if hidden:
        x = keras.layers.Dense(hidden, activation="relu")(x)
    scores = keras.layers.Dense(len(classes), name=head)(x)
    return Snapshot(keras.Model(pixels, scores), classes, {}, Path())


def scores_of(snapshot, pixels=PIXELS):
    return snapshot.network(pixels.astype(np.float32)).numpy()


def softmax(scores):
    powers = np.exp(np.float64(scores) - np.max(scores, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(scores):
    return 1 / (1 + np.exp(-np.float64(scores)))
