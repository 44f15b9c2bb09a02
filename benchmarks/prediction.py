"""Prediction from files, the network alone on batches in memory, and the predictor on the same.

The network alone is compiled by tf.function; in the predictor, weights are constants and batches
are split. Networks have random weights, which take as long as trained ones. benchmarks/cases.yaml
says what is compared.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import numpy as np
import tensorflow as tf

from library.dataset.images import ImageOptions
from library.inputs.decoding import ImageFormat
from library.prediction.image_paths import find_images
from library.prediction.image_pool import ImagePool
from library.prediction.predictor import Predictor
from library.prediction.preprocess import ImagePreprocessor, predict_files
from library.saving.snapshots import Snapshot
from project.hyperparameters import Hyperparameters
from project.networks import make_network

SIZE, BATCH, CLASSES = 224, 32, 10


def build(name: str) -> keras.Model:
    """Return MobileNetV2 or the project's small network, with random weights."""
    if name == "mobilenet":
        return keras.applications.MobileNetV2((SIZE, SIZE, 3), weights=None, classes=CLASSES)
    return make_network("simple", (SIZE, SIZE, 3), CLASSES, Hyperparameters().model_dump())


def make_predictor(name: str) -> Predictor:
    """Return the predictor of a snapshot with this network."""
    return Predictor([Snapshot(build(name), tuple(map(str, range(CLASSES))), {}, Path())])


def from_files(name: str, folder: str) -> Iterator[int | None]:
    """Predict the images of a folder as `run.py predict` does."""
    predictor = make_predictor(name)
    with ImagePool() as pool:
        preprocessor = ImagePreprocessor(
            ImageFormat(SIZE, 3), ImageOptions(max_edge=0), pool.convert
        )
        while True:
            yield
            images = predict_files(find_images([folder]), preprocessor, predictor, BATCH)
            yield sum(1 for _ in images)


def on_batches(name: str, count: str) -> Iterator[int | None]:
    """Call the predictor on batches in memory."""
    return repeat(make_predictor(name).probabilities, int(count))


def alone(name: str, count: str) -> Iterator[int | None]:
    """Call the network on batches in memory."""
    network = build(name)
    compiled = tf.function(lambda images: tf.nn.softmax(network(images, training=False)))
    return repeat(lambda images: compiled(tf.cast(images, tf.float32)).numpy(), int(count))


def repeat(predict: Callable[[np.ndarray], object], count: int) -> Iterator[int | None]:
    """Call a function on batches, `count` images in all."""
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    while True:
        yield
        for _ in range(count // BATCH):
            predict(batch)
        yield count // BATCH * BATCH
