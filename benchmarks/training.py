"""Measure optimization steps per second against Keras's `Model.fit` and PyTorch.

    python benchmarks/training.py [--pairs 5]

All contenders train the same network on the same data in memory with the same optimizer. Runs
alternate, and the figures are medians of the ratios of neighboring runs, so that changes in the
machine's speed cancel out. PyTorch takes part if it is installed (`pip install torch`, CPU build).
The last line is a JSON object of ratios.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.training.parts import NoSchedule, Parts
from library.training.steps import MetricSums, make_train_steps
from project.hyperparameters import Hyperparameters
from project.networks import make_network
from project.objective import Objective

CLASSES = 10


def small(shape):
    """The project's own small network."""
    values = {**Hyperparameters().model_dump(), "head": "softmax"}
    return make_network("simple", shape, CLASSES, values)


def mobilenet(shape):
    """MobileNetV2 without its ImageNet weights, which a benchmark of speed does not need."""
    pixels = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    base = keras.applications.MobileNetV2(
        input_shape=shape, include_top=False, weights=None, pooling="avg"
    )
    return keras.Model(pixels, keras.layers.Dense(CLASSES)(base(x)))


def make_data(shape, batch_size, batches):
    """Return random uint8 images and their labels, as arrays of whole batches."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size * batches, *shape), np.uint8)
    return images, random.integers(0, CLASSES, batch_size * batches)


def repeated(data, batch_size):
    """Repeat batches without autotuning, because ending a tuned iterator can take long."""
    batches = without_autotune(tf.data.Dataset.from_tensor_slices(data))
    return batches.batch(batch_size, drop_remainder=True).repeat().prefetch(4)


class Ours:
    """The project's compiled step, several of them in one call."""

    def __init__(self, build, data, batch_size, steps_per_execution):
        self.network = build(data[0].shape[1:])
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build(self.network.trainable_variables)
        self.steps_per_execution = steps_per_execution
        totals = MetricSums(Objective.names)
        parts = Parts(self.network, Objective(), optimizer, NoSchedule(optimizer))
        self.train_steps = make_train_steps(parts, totals, steps_per_execution=steps_per_execution)
        self.data = repeated(data, batch_size)

    def run(self, steps):
        """Make this many steps, as the training loop does."""
        iterator = iter(self.data)
        count = min(self.steps_per_execution, steps)
        for _ in range(0, steps, count):
            losses, _ = self.train_steps(iterator, count)
        float(losses[-1])


class Fit:
    """`keras.Model.fit`, with the same number of steps in one call."""

    def __init__(self, build, data, batch_size, steps_per_execution=1):
        self.network = build(data[0].shape[1:])
        self.network.compile(
            keras.optimizers.Adam(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=False,
            steps_per_execution=steps_per_execution,
        )
        self.data = repeated(data, batch_size)

    def run(self, steps):
        """Make this many steps."""
        self.network.fit(self.data, steps_per_epoch=steps, epochs=1, verbose=0)


class Torch:
    """The small network in PyTorch: eager, channels last."""

    def __init__(self, data, batch_size):
        import torch
        from torch import nn

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        layers = []
        _, size, _, inputs = data[0].shape
        outputs = 32
        while size > 3:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.MaxPool2d(2)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs, outputs, size = outputs, min(2 * outputs, 256), size // 2
        layers += [nn.Flatten(), nn.Dropout(0.5), nn.Linear(inputs * size * size, CLASSES)]
        self.torch = torch
        self.network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, eps=1e-7)
        self.images = torch.from_numpy(data[0]).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(data[1])
        self.batch_size = batch_size

    def run(self, steps):
        """Make this many steps."""
        count = len(self.labels) // self.batch_size
        for step in range(steps):
            chosen = slice(step % count * self.batch_size, (step % count + 1) * self.batch_size)
            images = self.images[chosen].float() / 127.5 - 1
            images = images.contiguous(memory_format=self.torch.channels_last)
            scores = self.network(images)
            loss = self.torch.nn.functional.cross_entropy(scores, self.labels[chosen])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        float(loss.detach())


def seconds(run, steps):
    """Return the seconds that `run` takes for a number of steps."""
    start = time.perf_counter()
    run(steps)
    return time.perf_counter() - start


def compare(ours, peer, steps, pairs):
    """Return the median of peer's time over ours, after a warm-up of both."""
    ours.run(steps)
    peer.run(steps)
    ratios = []
    for pair in range(pairs):
        # Who comes first alternates as well.
        order = (ours, peer) if pair % 2 else (peer, ours)
        times = {id(each): seconds(each.run, steps) for each in order}
        ratios.append(times[id(peer)] / times[id(ours)])
    return statistics.median(ratios)


def first_step(make, pairs, **options):
    """Return the median time from nothing built to the first step done."""
    times = []
    for _ in range(pairs):
        keras.backend.clear_session()
        start = time.perf_counter()
        make(**options).run(1)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    ratios = {}
    cases = (
        ("small network, 28x28, batch 128", small, (28, 28, 1), 128, 40, 1),
        ("small network, 28x28, batch 8", small, (28, 28, 1), 8, 256, 16),
        ("MobileNetV2, 224x224, batch 8", mobilenet, (224, 224, 3), 8, 4, 1),
    )
    for name, build, shape, batch_size, steps, steps_per_execution in cases:
        data = make_data(shape, batch_size, 4)
        ours = Ours(build, data, batch_size, steps_per_execution)
        ratios[f"{name}: speed / fit"] = compare(ours, Fit(build, data, batch_size), steps, pairs)
        print(f"{name}: {ratios[f'{name}: speed / fit']:.2f} of Model.fit's speed", flush=True)
    data = make_data((28, 28, 1), 128, 8)
    options = {"build": small, "data": data, "batch_size": 128, "steps_per_execution": 1}
    ratio = first_step(Ours, pairs, **options) / first_step(Fit, pairs, **options)
    ratios["time to the first step / fit"] = ratio
    print(f"time to the first step: {ratio:.2f} of Model.fit's")
    try:
        torch = Torch(data, 128)
    except ImportError:
        print("PyTorch is not installed: not compared")
    else:
        ratio = compare(Ours(**options), torch, 40, pairs)
        ratios["small network, 28x28, batch 128: speed / PyTorch"] = ratio
        print(f"small network, batch 128: {ratio:.2f} of PyTorch's speed")
    print(json.dumps({name: round(ratio, 3) for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
