from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.models import inference
from library.models.inference import Inference

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), np.uint8)


def make_network():
    """Return a network with normalizations to fold, whose statistics are not the first ones."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(keras.layers.ReLU()(x)))
    network = keras.Model(pixels, keras.layers.Dense(5)(x))
    network(PIXELS.astype(np.float32), training=True)
    return network


def scores_of(network, pixels=PIXELS):
    return network(pixels.astype(np.float32), training=False).numpy()


@pytest.mark.parametrize("count", [0, 1, 8, 9, 21])
def test_gives_what_the_network_gives_however_many_images(count):
    network = make_network()
    found = Inference(network)(PIXELS[:count])
    assert found.dtype == np.float32
    assert found.shape == (count, 5)
    assert np.allclose(found, scores_of(network)[:count], atol=1e-5)


def test_finishes_and_compiles_on_request():
    network = make_network()
    found = Inference(network, tf.nn.softmax, xla=True)(PIXELS)
    assert np.allclose(found, tf.nn.softmax(scores_of(network)), atol=1e-5)


def test_its_weights_are_constants():
    network = make_network()
    infer = Inference(network)
    before = infer(PIXELS)
    for each in network.trainable_variables:
        each.assign(each * 2)
    assert np.array_equal(infer(PIXELS), before)
    assert not np.allclose(scores_of(network), before)


def test_weights_too_large_for_a_graph_stay_variables(monkeypatch):
    monkeypatch.setattr(inference, "_MOST_CONSTANT_BYTES", 100)
    network = make_network()
    infer = Inference(network)
    network.layers[-1].kernel.assign(network.layers[-1].kernel * 2)
    assert np.allclose(infer(PIXELS), scores_of(network), atol=1e-5)


@keras.saving.register_keras_serializable("test_inference")
class Foreign(keras.layers.Layer):
    """Multiplies by variables that Keras knows nothing of, as those of a module are."""

    def build(self, shape):
        self.factor = [tf.Variable(2.0), tf.Variable(3.0)]

    def call(self, inputs):
        return inputs * self.factor[0] * self.factor[1]


def test_variables_of_a_module_become_constants_too():
    pixels = keras.Input((8, 8, 3))
    layer = Foreign()
    network = keras.Model(pixels, layer(pixels))
    infer = Inference(network)
    layer.factor[0].assign(9.0)
    assert np.allclose(infer(PIXELS), 6.0 * PIXELS)


def test_a_graph_that_has_more_than_variables_is_left_as_it_is(monkeypatch):
    def refuse(graph):
        raise ValueError("a table is no constant")

    monkeypatch.setattr(inference, "convert_variables_to_constants_v2", refuse)
    pixels = keras.Input((8, 8, 3))
    network = keras.Model(pixels, Foreign()(pixels))
    assert np.allclose(Inference(network)(PIXELS), 6.0 * PIXELS)


def test_may_be_called_by_several_threads():
    network = make_network()
    infer, expected = Inference(network), scores_of(network)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: infer(PIXELS), range(16)):
            assert np.allclose(found, expected, atol=1e-5)


def test_half_precision_gives_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = make_network()
    finally:
        keras.config.set_dtype_policy("float32")
    found = Inference(network)(PIXELS)
    assert found.dtype == np.float32
    assert np.allclose(found, np.float32(scores_of(network)), atol=0.05)
