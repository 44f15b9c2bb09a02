"""Networks of one's own, of any kind of Keras model, with layers that have no special names."""

import keras
import numpy as np
import pytest

from library.errors import SettingsError
from library.explaining.layer_graph import flatten_network
from library.prediction.embedding import with_embedding
from project.hyperparameters import Hyperparameters
from project.networks import NETWORKS, make_network

DEFAULTS = Hyperparameters().model_dump()
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)


def plain_layers(class_count):
    layers = keras.layers
    return [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(class_count)]


class Subclassed(keras.Model):
    def __init__(self, class_count):
        super().__init__()
        self.steps = plain_layers(class_count)

    def call(self, pixels):
        for each in self.steps:
            pixels = each(pixels)
        return pixels


def functional(image_shape, class_count):
    pixels = keras.Input(image_shape)
    return keras.Model(pixels, Subclassed(class_count).call(pixels))


def built(image_shape, class_count):
    return keras.Sequential([keras.Input(image_shape), *plain_layers(class_count)])


OWN_NETWORKS = {
    "functional": functional,
    "built": built,
    "unbuilt": lambda image_shape, class_count: keras.Sequential(plain_layers(class_count)),
    "subclassed": lambda image_shape, class_count: Subclassed(class_count),
}


@pytest.mark.parametrize("kind", OWN_NETWORKS)
def test_own_network_is_called_by_its_name_here(monkeypatch, kind):
    monkeypatch.setitem(NETWORKS, "mine", OWN_NETWORKS[kind])
    network = make_network("mine", (8, 8, 3), 2, DEFAULTS)
    assert network.name == "mine"
    assert network.input_shape == (None, 8, 8, 3)
    assert network.output_shape == (None, 2)
    scores = network(PIXELS)
    opened = flatten_network(network)
    assert np.allclose(keras.Model(opened.pixels, opened.scores)(PIXELS), scores, rtol=1e-4)
    if kind == "subclassed":
        assert opened.last_spatial_layer() is None
        with pytest.raises(SettingsError, match="embedding"):
            with_embedding(network)
    else:
        assert opened.last_spatial_layer().output.shape == (None, 6, 6, 4)
        found, embedding = with_embedding(network)(PIXELS)
        assert np.allclose(found, scores, rtol=1e-4)
        assert embedding.shape == (2, 4)


def test_own_network_keeps_the_name_that_it_has(monkeypatch):
    pixels = keras.Input((8, 8, 3))
    scores = keras.layers.Dense(2)(keras.layers.Flatten()(pixels))
    own = keras.Model(pixels, scores, name="theirs")
    monkeypatch.setitem(NETWORKS, "mine", lambda image_shape, class_count: own)
    assert make_network("mine", (8, 8, 3), 2, DEFAULTS).name == "theirs"
