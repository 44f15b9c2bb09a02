"""BatchNormalization by TensorFlow's fused op: the same as Keras's, and nothing of it is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.models.fused_normalization import fuse_batch_normalization

IMAGES = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 8)).astype(np.float32)


def make_network(shape=IMAGES.shape[1:], **options):
    keras.utils.set_random_seed(0)
    pixels = keras.Input(shape)
    options = {"gamma_initializer": "random_normal", "beta_initializer": "random_normal", **options}
    return keras.Model(pixels, keras.layers.BatchNormalization(**options)(pixels))


def step(network, images=IMAGES, training=True):
    """Return outputs, new statistics, and gradients of the input and the weights."""
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = network(images, training=training)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    gradients = tape.gradient(loss, [images, *network.trainable_variables])
    return [outputs, *network.non_trainable_variables, *gradients]


def ops_of(network, images=IMAGES):
    graph = tf.function(lambda images: network(images, training=True), autograph=False)
    return {each.type for each in graph.get_concrete_function(images).graph.get_operations()}


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9, "axis": 3, "epsilon": 0.1}, {"scale": False, "center": False}]
)
def test_fused_matches_keras(options):
    expected = step(make_network(**options))
    network = make_network(**options)
    fuse_batch_normalization(network)
    fuse_batch_normalization(network)  # once more changes nothing
    assert "FusedBatchNormV3" in ops_of(network)
    for ours, theirs in zip(step(network), expected, strict=True):
        assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_fused_is_float32_inside_under_mixed_precision():
    networks = [make_network(dtype="mixed_bfloat16") for _ in range(2)]
    fuse_batch_normalization(networks[0])
    ours, theirs = map(step, networks)
    assert ours[0].dtype == theirs[0].dtype == tf.bfloat16
    assert np.allclose(ours[1], theirs[1], rtol=1e-5)
    assert np.allclose(tf.cast(ours[0], tf.float32), tf.cast(theirs[0], tf.float32), rtol=0.01)


@pytest.mark.parametrize("case", ["inference", "frozen", "vectors", "axis", "synchronized"])
def test_what_the_op_cannot_do_is_left_to_keras(case):
    images = IMAGES.reshape(-1, 8) if case == "vectors" else IMAGES
    networks = [make_network(images.shape[1:], axis=2 if case == "axis" else -1) for _ in range(2)]
    fuse_batch_normalization(networks[0])
    for network in networks:
        network.layers[1].trainable = case != "frozen"
        network.layers[1].synchronized = case == "synchronized"
    assert case == "inference" or "FusedBatchNormV3" not in ops_of(networks[0], images)
    ours, theirs = (step(network, images, case != "inference") for network in networks)
    assert all(map(np.array_equal, ours, theirs))


def test_saved_model_is_plain_keras(tmp_path):
    network = make_network()
    fuse_batch_normalization(network)
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert type(loaded.layers[1]) is keras.layers.BatchNormalization
    assert np.array_equal(loaded(IMAGES), network(IMAGES))


def test_keras_does_not_fuse():
    # If this fails, Keras needs fuse_batch_normalization no longer.
    assert "FusedBatchNormV3" not in ops_of(make_network())
