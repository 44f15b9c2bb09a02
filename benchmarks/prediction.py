"""Measure prediction from files against the network alone on batches in memory.

    python -m benchmarks.prediction [--images 256] [--rounds 3]

It writes 500 x 375 JPEGs of about 100 kB each, and measures in turns, for MobileNetV2 and for the
network `simple` at 224 x 224 pixels, as medians:

- the network alone, compiled by tf.function, on batches of 32 in memory
- the predictor, whose weights are constants and which splits batches, on the same batches
- prediction from files

The last line is a JSON object: the rate from files divided by each of the other rates.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import numpy as np
import tensorflow as tf

from benchmarks.inputs import make_photographs
from library.dataset.images import ImageOptions
from library.inputs.decoding import ImageFormat
from library.prediction.image_paths import find_images
from library.prediction.image_pool import ImagePool
from library.prediction.predictor import Predictor
from library.prediction.preprocess import ConvertImage, ImagePreprocessor, predict_files
from library.saving.snapshots import Snapshot
from project.hyperparameters import Hyperparameters
from project.networks import make_network

SIZE, BATCH, CLASSES = 224, 32, 10


def networks() -> dict[str, keras.Model]:
    """Return networks by name, with random weights, which take as long as trained ones."""
    mobilenet = keras.applications.MobileNetV2((SIZE, SIZE, 3), weights=None, classes=CLASSES)
    return {
        "mobilenet": mobilenet,
        "simple": make_network("simple", (SIZE, SIZE, 3), CLASSES, Hyperparameters().model_dump()),
    }


def seconds(work: Callable[[], None]) -> float:
    """Return the seconds that a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    network: keras.Model, folder: Path, count: int, rounds: int, convert: ConvertImage
) -> dict[str, float]:
    """Print all rates, and return the rate from files divided by the others.

    Args:
        network: The network.
        folder: The folder of images.
        count: Number of images.
        rounds: Number of measurements of each rate.
        convert: Converts one image.
    """
    classes = tuple(map(str, range(CLASSES)))
    predictor = Predictor([Snapshot(network, classes, {}, folder)])
    preprocessor = ImagePreprocessor(ImageFormat(SIZE, 3), ImageOptions(max_edge=0), convert)
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)

    alone = tf.function(lambda images: tf.nn.softmax(network(images, training=False)))

    def on_batches(predict):
        for _ in range(count // BATCH):
            predict(batch)

    def from_files():
        for _ in predict_files(find_images([str(folder)]), preprocessor, predictor, BATCH):
            pass

    measured = {
        "network": lambda: on_batches(lambda images: alone(tf.cast(images, tf.float32)).numpy()),
        "predictor": lambda: on_batches(predictor.probabilities),
        "files": from_files,
    }
    for work in measured.values():
        work()
    rows = [[seconds(work) for work in measured.values()] for _ in range(rounds)]
    medians = (statistics.median(column) for column in zip(*rows, strict=True))
    rates = {name: count / median for name, median in zip(measured, medians, strict=True)}
    print(network.name, *(f"{name} {rate:,.0f} images/s" for name, rate in rates.items()), sep="  ")
    return {f"over_{name}": round(rates["files"] / rates[name], 3) for name in list(rates)[:2]}


def main() -> None:
    """Measure and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=int, default=256, help="number of images, a multiple of 32"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of measurements")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ImagePool() as pool:
        make_photographs(Path(temporary), options.images)
        ratios = {
            name: compare(network, Path(temporary), options.images, options.rounds, pool.convert)
            for name, network in networks().items()
        }
    print(json.dumps({"from_files": ratios}))


if __name__ == "__main__":
    main()
