from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.models import inference
from library.models.inference import Inference
from library.models.scores import MULTI_LABEL, is_multi_label, to_probabilities

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
def test_outputs_are_the_networks(count):
    network = make_network()
    found = Inference(network)(PIXELS[:count])
    assert found.dtype == np.float32
    assert found.shape == (count, 5)
    assert np.allclose(found, scores_of(network)[:count], atol=1e-5)


def test_postprocess_and_xla():
    network = make_network()
    found = Inference(network, tf.nn.softmax, xla=True)(PIXELS)
    assert np.allclose(found, tf.nn.softmax(scores_of(network)), atol=1e-5)


def test_weights_are_constants():
    network = make_network()
    infer = Inference(network)
    before = infer(PIXELS)
    for each in network.trainable_variables:
        each.assign(each * 2)
    assert np.array_equal(infer(PIXELS), before)
    assert not np.allclose(scores_of(network), before)


def test_large_weights_stay_variables(monkeypatch):
    monkeypatch.setattr(inference, "_MAX_CONSTANT_BYTES", 100)
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


def test_variables_of_a_module_are_constants():
    pixels = keras.Input((8, 8, 3))
    layer = Foreign()
    network = keras.Model(pixels, layer(pixels))
    infer = Inference(network)
    layer.factor[0].assign(9.0)
    assert np.allclose(infer(PIXELS), 6.0 * PIXELS)


def test_graph_with_tables_stays_as_it_is(monkeypatch):
    def refuse(graph):
        raise ValueError("a table is no constant")

    monkeypatch.setattr(inference, "convert_variables_to_constants_v2", refuse)
    pixels = keras.Input((8, 8, 3))
    network = keras.Model(pixels, Foreign()(pixels))
    assert np.allclose(Inference(network)(PIXELS), 6.0 * PIXELS)


def test_several_threads():
    network = make_network()
    infer, expected = Inference(network), scores_of(network)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: infer(PIXELS), range(16)):
            assert np.allclose(found, expected, atol=1e-5)


def test_float32_under_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = make_network()
    finally:
        keras.config.set_dtype_policy("float32")
    found = Inference(network)(PIXELS)
    assert found.dtype == np.float32
    assert np.allclose(found, np.float32(scores_of(network)), atol=0.05)


SCORES = np.array([[2.0, 0.0, -1.0], [90.0, -90.0, 0.0]], np.float32)


def test_softmax_and_temperature():
    sure, unsure = (np.asarray(to_probabilities(SCORES, each)) for each in (1.0, 4.0))
    exponentials = np.exp(SCORES[0])
    assert sure[0] == pytest.approx(exponentials / exponentials.sum())
    assert sure.sum(1) == pytest.approx([1, 1])
    assert unsure[0].max() < sure[0].max()
    assert (unsure.argsort(1) == sure.argsort(1)).all()
    assert sure.dtype == np.float32


def test_sigmoid_of_multi_label_logits():
    multi_label = np.asarray(to_probabilities(SCORES, 2.0, multi_label=True))
    assert multi_label[0] == pytest.approx(1 / (1 + np.exp(-SCORES[0] / 2)))


def test_probabilities_in_a_graph():
    in_graph = tf.function(to_probabilities)(tf.constant(SCORES))
    assert np.array_equal(in_graph, to_probabilities(SCORES))


def test_is_multi_label():
    pixels = keras.Input((2,))
    for name, multi_label in (("scores", False), (MULTI_LABEL, True)):
        network = keras.Model(pixels, keras.layers.Dense(3, name=name)(pixels))
        assert is_multi_label(network) is multi_label
