"""Compare two logical CPUs with one, in a process of its own."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import StoppedError
from library.training.distribution import Devices, synchronize_batch_norm
from library.training.keras_fit import KerasFitTrainer
from tests.helpers import small_run

# Momentum shows every factor in a gradient, Adam would divide it away; and so does clipping.
RECIPE = {"optimizer": "momentum", "clip_norm": 0.1}


def make_network(synchronized):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.BatchNormalization()(x)
    network = keras.Model(pixels, keras.layers.Dense(2)(x))
    if synchronized:
        synchronize_batch_norm(network)
    return network


def make_run(devices, folder=None, *, synchronized=True, **options):
    small_run.make_network = lambda: make_network(synchronized)
    folder = folder or Path(tempfile.mkdtemp())
    with devices.strategy.scope():
        return small_run.make_run(folder, devices=devices, hyperparameters=RECIPE, **options)


def assert_same(run, other, tolerance):
    mine, theirs = small_run.everything(run), small_run.everything(other)
    for row, wanted in zip(mine[3], theirs[3], strict=True):
        assert row == pytest.approx(wanted, abs=tolerance)
    for value, wanted in zip(mine[0], theirs[0], strict=True):
        np.testing.assert_allclose(value, wanted, atol=tolerance)


def main(_):
    """Make the same runs on one device and on two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one, two = Devices(), Devices(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
    assert two.describe(8) == "2 CPUs, 4 images a step on each"

    # 22 examples in batches of 8 and 6: the last ones leave less than a share, or nothing.
    whole = make_run(one)
    whole.run()
    mirrored = make_run(two)
    mirrored.run()
    assert mirrored.evaluator._totals.examples == 22
    assert_same(mirrored, whole, 1e-5)
    assert mirrored.learning_rate_at(5) == whole.learning_rate_at(5)

    # Through fit.
    make = small_run.Trainer
    small_run.Trainer = KerasFitTrainer
    fit = make_run(two)
    small_run.Trainer = make
    fit.run()
    assert_same(fit, mirrored, 0)

    # Without synchronization each replica has statistics of its own, averaged when they are used.
    run = make_run(two, synchronized=False, average_decay=0.9, train_epochs=1)
    run.run()
    for variable in run.network.variables:
        first, second = (each.numpy() for each in variable.value.values)
        assert np.array_equal(first, second), variable.path
        assert np.isfinite(first).all(), variable.path

    # Stopped and gone on with.
    folder = Path(tempfile.mkdtemp())
    small_run.make_network = lambda: make_network(synchronized=True)
    with two.strategy.scope():
        stopping = small_run.stopping_run(folder, 5, devices=two, hyperparameters=RECIPE)
    with pytest.raises(StoppedError, match="after step 5"):
        stopping.run()
    resumed = make_run(two, folder)
    resumed.run()
    assert_same(resumed, mirrored, 0)
