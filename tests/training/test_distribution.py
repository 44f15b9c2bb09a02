"""Several replicas against the oracle of one: the same data, the same losses, the same end."""

import signal

import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.training.distribution import Devices
from tests.helpers.workers import Worker


def test_one_device():
    devices = Devices()
    assert (devices.replicas, devices.workers, devices.is_chief) == (1, 1, True)
    batches = tf.data.Dataset.range(3)
    assert devices.divide(batches, 7) is batches
    assert devices.agree(signal.SIGTERM)[0] == signal.SIGTERM
    assert devices.chief_first(lambda: 3) == 3
    assert devices.describe(16) == "the CPU"


def test_batch_size_must_be_divisible():
    devices = Devices()
    devices.replicas = 3
    with pytest.raises(SettingsError, match=r"batch_size 16 .* 3 .* 15 or 18"):
        devices.check_batch_size("batch_size", 16)
    with pytest.raises(SettingsError, match=r"batch_size 2 .* 3$"):
        devices.check_batch_size("batch_size", 2)


@pytest.mark.slow
def test_mirrored_devices_match_one():
    """In its own process, because logical devices are made before TensorFlow starts."""
    code, said = Worker(["--verbose"], module="tests.helpers.mirrored").finish(300)
    assert code == 0, said
