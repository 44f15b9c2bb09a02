"""How fast predicting from files is, against the network alone on ready batches.

    python -m benchmarks.prediction [--images 256] [--rounds 3]

Makes 500 x 375 JPEGs of about 100 kB each. Both contenders take turns, for a network of the size of
MobileNetV2 and for the simple one, at 224 x 224 pixels; rates are medians. The last line is one
JSON object: the rate from files over the network's own.
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

from benchmarks.inputs import make_photographs
from library.dataset.converters import Converters
from library.dataset.images import ImageOptions
from library.inputs.decoding import ImageFormat
from library.prediction.finding import find_images
from library.prediction.pictures import Pictures
from library.prediction.predictor import Predictor
from library.prediction.stream import predict_files
from library.training.snapshots import Snapshot
from project.networks.simple import simple

SIZE, BATCH, CLASSES = 224, 32, 10


def networks():
    """Give {name: network} without pretrained weights: they cost as much."""
    mobilenet = keras.applications.MobileNetV2((SIZE, SIZE, 3), weights=None, classes=CLASSES)
    return {"mobilenet": mobilenet, "simple": simple((SIZE, SIZE, 3), CLASSES)}


def seconds(work):
    """Give the seconds that a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(network, folder, count, rounds, convert):
    """Give the rate from files over that on ready batches; print both."""
    classes = tuple(map(str, range(CLASSES)))
    predictor = Predictor([Snapshot(network, classes, {}, folder)])
    pictures = Pictures(ImageFormat(SIZE, 3), ImageOptions(max_edge=0), convert)
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)

    def ready():
        for _ in range(count // BATCH):
            predictor.probabilities(batch)

    def from_files():
        for _ in predict_files(find_images([str(folder)]), pictures, predictor, BATCH):
            pass

    ready()
    turns = [(seconds(ready), seconds(from_files)) for _ in range(rounds)]
    alone, streamed = (count / statistics.median(each) for each in zip(*turns, strict=True))
    print(f"{network.name:12} {alone:7,.0f} images/s ready, {streamed:7,.0f} images/s from files")
    return round(streamed / alone, 3)


def main():
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="how many; a multiple of 32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # As predict has them, which starts the first process while TensorFlow is imported.
    with tempfile.TemporaryDirectory() as temporary, Converters() as converters:
        make_photographs(Path(temporary), options.images)
        ratios = {
            name: compare(
                network, Path(temporary), options.images, options.rounds, converters.convert
            )
            for name, network in networks().items()
        }
    print(json.dumps({"from_files_over_ready": ratios}))


if __name__ == "__main__":
    main()
