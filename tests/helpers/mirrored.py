"""Compare two logical CPUs with one, in a process of its own."""

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import StoppedError
from library.evaluation.split_metric import AreaMetric
from library.training.distribution import Devices, synchronize_batch_norm
from library.training.early_stopping import Monitor
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


def make_run(devices, folder=None, *, synchronized=True, make=small_run.make_run, **options):
    folder = folder or Path(tempfile.mkdtemp())
    options |= {"network": lambda: make_network(synchronized), "hyperparameters": RECIPE}
    options |= {"split_metric": AreaMetric("macro_pr_auc", 2), "monitor": Monitor("macro_pr_auc")}
    with devices.strategy.scope():
        return make(folder, devices=devices, **options)


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
    assert two.describe(8) == "2 CPUs, 4 images per step on each"

    # 22 examples in batches of 8 and 6: the last ones leave less than a share, or nothing.
    whole = make_run(one)
    whole.fit()
    mirrored = make_run(two)
    mirrored.fit()
    assert mirrored.evaluator.evaluate(small_run.Validation())[1] == 22
    assert_same(mirrored, whole, 1e-5)
    assert mirrored.learning_rate_at(5) == whole.learning_rate_at(5)

    # Without synchronization each replica normalizes with the statistics of its own images.
    options = {"synchronized": False, "ema_decay": 0.9}
    run = make_run(two, **options)
    run.fit()
    for variable in run.parts.network.variables:
        first, second = (each.numpy() for each in variable.value.values)
        assert np.array_equal(first, second), variable.path
        assert np.isfinite(first).all(), variable.path

    # Stopped within an epoch, and resumed by the other engine.
    folder = Path(tempfile.mkdtemp())
    make_stopping = functools.partial(small_run.stopping_run, step=5)
    with pytest.raises(StoppedError, match="step 5"):
        make_run(two, folder, make=make_stopping, **options).fit()
    resumed = make_run(two, folder, trainer=KerasFitTrainer, **options)
    resumed.fit()
    small_run.assert_same(resumed, run)
