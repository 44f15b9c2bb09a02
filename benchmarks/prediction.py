"""How fast predicting from files is, against the network alone on ready batches.

    python -m benchmarks.prediction [--images 256] [--rounds 3]

Makes 500 x 375 JPEGs of about 100 kB each. The contenders take turns, for a network of the size of
MobileNetV2 and for the simple one, at 224 x 224 pixels; rates are medians:

- the network alone, compiled by tf.function, on ready batches of 32
- the predictor, which makes its weights constants and divides batches, on the same ready batches
- predicting from files

The last line is one JSON object: the rate from files over that of each of the others.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.inputs import make_photographs
from library.dataset.image_pool import ImagePool
from library.dataset.images import ImageOptions
from library.inputs.decoding import ImageFormat
from library.prediction.image_paths import find_images
from library.prediction.predictor import Predictor
from library.prediction.preprocess import ImagePreprocessor, predict_files
from library.saving.snapshots import Snapshot
from project.networks.simple import simple

SIZE, BATCH, CLASSES = 224, 32, 10


def networks():
    """Give {name: network} without pretrained weights: they cost as much."""
    mobilenet = keras.applications.MobileNetV2((SIZE, SIZE, 3), weights=None, classes=CLASSES)
    return {"mobilenet": mobilenet, "simple": simple((SIZE, SIZE, 3), CLASSES)}


def seconds(work):
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(network, folder, count, rounds, convert):
    """Return the rate from files over those on ready batches; print all."""
    classes = tuple(map(str, range(CLASSES)))
    predictor = Predictor([Snapshot(network, classes, {}, folder)])
    pictures = ImagePreprocessor(ImageFormat(SIZE, 3), ImageOptions(max_edge=0), convert)
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)

    alone = tf.function(lambda images: tf.nn.softmax(network(images, training=False)))

    def ready(predict):
        for _ in range(count // BATCH):
            predict(batch)

    def from_files():
        for _ in predict_files(find_images([str(folder)]), pictures, predictor, BATCH):
            pass

    contenders = {
        "network": lambda: ready(lambda images: alone(tf.cast(images, tf.float32)).numpy()),
        "predictor": lambda: ready(predictor.probabilities),
        "files": from_files,
    }
    for each in contenders.values():
        each()
    turns = [[seconds(each) for each in contenders.values()] for _ in range(rounds)]
    times = (statistics.median(each) for each in zip(*turns, strict=True))
    rates = {name: count / each for name, each in zip(contenders, times, strict=True)}
    print(network.name, *(f"{name} {rate:,.0f} images/s" for name, rate in rates.items()), sep="  ")
    return {f"over_{name}": round(rates["files"] / rates[name], 3) for name in list(rates)[:2]}


def main():
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="how many; a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # As predict has them, which starts the first process while TensorFlow is imported.
    with tempfile.TemporaryDirectory() as temporary, ImagePool() as converters:
        make_photographs(Path(temporary), options.images)
        ratios = {
            name: compare(
                network, Path(temporary), options.images, options.rounds, converters.convert
            )
            for name, network in networks().items()
        }
    print(json.dumps({"from_files": ratios}))


if __name__ == "__main__":
    main()
