import keras
import numpy as np
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.training.distribution import Devices
from library.training.train_and_evaluate import check_one_batch, run_summary
from project.objective import Objective


class Inputs:
    """Five images, or one, in batches of four."""

    batch_size = 4

    def __init__(self, examples):
        self.examples = examples
        self.batches_per_epoch = -(-examples // 4)

    def batches(self, epoch=0):
        pixels = np.zeros((self.examples, 2, 2, 1), np.uint8)
        labels = np.zeros(self.examples, np.int64)
        return without_autotune(tf.data.Dataset.from_tensor_slices((pixels, labels))).batch(4)


def make_network():
    pixels = keras.Input((2, 2, 1))
    scores = keras.layers.Dense(2)(keras.layers.Flatten()(pixels))
    return keras.Model(pixels, scores, name="tiny")


def test_a_line_tells_the_network_the_data_and_the_device():
    line = run_summary(make_network(), ("cat", "dog"), Inputs(5), Inputs(1), Devices())
    assert line.startswith(
        "tiny: 10 parameters; 2 classes, 5 training and 1 validation image, "
        "2 steps of 4 an epoch, on /device:"
    )


def test_a_batch_of_each_split_goes_through():
    assert check_one_batch(make_network(), Objective(), Inputs(5), Inputs(1)) == (
        "dry run, nothing written: training images (4, 2, 2, 1) → scores (4, 2), "
        "validation images (1, 2, 2, 1) → scores (1, 2)"
    )
