"""Networks of project/networks with the settings' defaults, and small ones with unusual layers."""

import keras
import numpy as np

from project.hyperparameters import Hyperparameters
from project.networks import make_network


def build(name, image_shape, class_count, **hyperparameters):
    """Build a network by name; hyperparameters that are not given have their defaults.

    A head on a pretrained base is as if trained: of zeros, all logits would be equal.
    """
    values = {**Hyperparameters().model_dump(), "head": "softmax", **hyperparameters}
    network = make_network(name, image_shape, class_count, values)
    for each in network.trainable_variables:
        if each.path.endswith("/kernel") and not np.any(each):
            each.assign(keras.initializers.GlorotUniform(0)(each.shape))
    return network


class Twins(keras.layers.Layer):
    """A layer that calls two weights by one name."""

    def build(self, shape):
        self.first = self.add_weight(name="w", shape=(shape[-1],))
        self.second = self.add_weight(name="w", shape=(shape[-1],))

    def call(self, x):
        return x * self.first + self.second


def make_attentive():
    """Return a network of layers within which weights have equal names."""
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Reshape((16, 3))(pixels)
    x = keras.layers.MultiHeadAttention(2, 2, name="block1_attention")(x, x)
    # Named, or a second network in one process would have other names.
    x = keras.layers.Bidirectional(keras.layers.GRU(2, name="gru"), name="block2_recurrent")(x)
    return keras.Model(pixels, keras.layers.Dense(2, name="scores")(Twins(name="twins")(x)))
