import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.hub_layer import HubLayer


def save_module(folder):
    """Save a small module in the reusable TF2 form: training, variables, regularisation losses."""
    module = tf.train.Checkpoint()
    kernel = tf.Variable(
        np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), name="kernel"
    )
    mean = tf.Variable(tf.zeros(5), trainable=False, name="mean")

    @tf.function
    def call(images, training=False):
        features = tf.reduce_mean(images, [1, 2]) @ kernel
        if training:
            mean.assign(0.9 * mean + 0.1 * tf.reduce_mean(features, 0))
        return features - mean

    @tf.function(input_signature=[])
    def penalty():
        return 0.5 * tf.reduce_sum(kernel**2)

    images = tf.TensorSpec([None, None, None, 3], tf.float32)
    for training in (True, False):
        call.get_concrete_function(images, training=training)
    module.__call__ = call
    module.variables = [kernel, mean]
    module.trainable_variables = [kernel]
    module.regularization_losses = [penalty]
    tf.saved_model.save(module, str(folder))


@pytest.fixture
def handle(tmp_path):
    save_module(tmp_path / "module")
    return tmp_path / "module"


IMAGES = np.random.default_rng(1).uniform(0, 1, (4, 6, 6, 3)).astype(np.float32)


def make_network(handle, trainable):
    pixels = keras.Input((6, 6, 3))
    return keras.Model(pixels, HubLayer(handle, trainable=trainable)(pixels))


def test_it_gives_what_the_module_gives(handle):
    network = make_network(handle, trainable=False)
    assert network.output_shape == (None, 5)
    assert np.array_equal(network(IMAGES), tf.saved_model.load(handle)(IMAGES))


def test_frozen_it_learns_nothing_and_keeps_its_statistics(handle):
    network = make_network(handle, trainable=False)
    assert network.trainable_variables == []
    assert len(network.non_trainable_variables) == 2
    before = [each.numpy() for each in network.variables]
    network(IMAGES, training=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.variables, strict=True))
    assert network.losses == []


def test_fine_tuned_it_learns_and_counts_its_penalty(handle):
    network = make_network(handle, trainable=True)
    assert [each.name for each in network.trainable_variables] == ["kernel"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(IMAGES, training=True)) + sum(network.losses)
    (gradient,) = tape.gradient(loss, network.trainable_variables)
    kernel = network.trainable_variables[0].numpy()
    features = IMAGES.mean((1, 2))
    by_hand = np.repeat(features.sum(0)[:, None], 5, 1) + kernel
    assert np.allclose(gradient, by_hand, atol=1e-4)
    assert not np.array_equal(network.non_trainable_variables[0], np.zeros(5))


def test_what_it_learnt_is_saved_and_loaded(handle, tmp_path):
    network = make_network(handle, trainable=True)
    network.trainable_variables[0].assign(np.full((3, 5), 0.25))
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert np.array_equal(again(IMAGES), network(IMAGES))
    assert not np.array_equal(again(IMAGES), tf.saved_model.load(handle)(IMAGES))


def test_a_wrong_handle_is_one_line(tmp_path):
    with pytest.raises(UserError) as caught:
        HubLayer(tmp_path / "nothing")
    text = str(caught.value)
    assert text.startswith(f"cannot load the TF-Hub module {tmp_path / 'nothing'}: ")
    assert text.endswith("--hub_handle takes a URL, a folder or an archive with a SavedModel")
    assert "\n" not in text


def test_a_model_that_is_no_module_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    with pytest.raises(UserError, match="not in the reusable TF2 format"):
        HubLayer(tmp_path / "bare")
