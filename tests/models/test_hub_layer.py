import gc
import re
import shutil
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.models import hub_layer
from library.models.hub_download import hash_module
from library.models.hub_layer import HubLayer
from tests.helpers.hub_modules import IMAGES, features_of, save_call, save_module, save_tf1_module
from tests.helpers.workers import Worker


@pytest.fixture
def handle(tmp_path):
    save_module(tmp_path / "module")
    return tmp_path / "module"


def make_network(handle, trainable):
    pixels = keras.Input((6, 6, 3))
    return keras.Model(pixels, HubLayer(handle, trainable=trainable)(pixels))


def test_output_is_the_modules(handle):
    network = make_network(handle, trainable=False)
    assert network.output_shape == (None, 5)
    assert np.array_equal(network(IMAGES), tf.saved_model.load(handle)(IMAGES))


def test_frozen_layer_changes_nothing(handle):
    network = make_network(handle, trainable=False)
    assert network.trainable_variables == []
    assert len(network.non_trainable_variables) == 2
    before = [each.numpy() for each in network.variables]
    network(IMAGES, training=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.variables, strict=True))
    assert network.losses == []


def test_fine_tuned_layer_has_gradients_and_regularization_losses(handle):
    network = make_network(handle, trainable=True)
    assert [each.name for each in network.trainable_variables] == ["block_1_kernel"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(IMAGES, training=True)) + sum(network.losses)
    (gradient,) = tape.gradient(loss, network.trainable_variables)
    kernel = network.trainable_variables[0].numpy()
    features = IMAGES.mean((1, 2))
    by_hand = np.repeat(features.sum(0)[:, None], 5, 1) + kernel
    assert np.allclose(gradient, by_hand, atol=1e-4)
    assert not np.array_equal(network.non_trainable_variables[0], np.zeros(5))


def test_trainable_can_be_changed(handle):
    network = make_network(handle, trainable=False)
    network.layers[-1].trainable = True
    assert [each.name for each in network.trainable_variables] == ["block_1_kernel"]
    network.layers[-1].trainable = False
    assert network.trainable_variables == []


def test_partly_frozen_layer_runs_in_inference_mode(tmp_path):
    save_module(tmp_path, learned_bias=True)
    network = make_network(tmp_path, trainable=True)
    frozen, bias = network.trainable_variables
    frozen.trainable = False
    mean = network.non_trainable_variables[-1].numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(IMAGES, training=True) ** 2)
    assert tape.gradient(loss, [bias])[0] is not None
    assert np.array_equal(network.non_trainable_variables[-1], mean)
    frozen.trainable = True
    network(IMAGES, training=True)
    assert not np.array_equal(network.non_trainable_variables[-1], mean)


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [False, True])
def test_saved_network_contains_the_module(handle, trainable, tmp_path, monkeypatch):
    network = make_network(handle, trainable)
    for variable in network.variables:
        variable.assign(np.full(variable.shape, 0.25))
    expected = network(IMAGES)
    network.save(tmp_path / "network.keras")
    shutil.rmtree(handle)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "no cache"))
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert np.array_equal(again(IMAGES), expected)
    assert len(again.trainable_variables) == trainable
    # Saved once more, it still has it; so has an export.
    again.save(tmp_path / "again.keras")
    assert np.array_equal(keras.models.load_model(tmp_path / "again.keras")(IMAGES), expected)
    again.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(tmp_path / "export")
    assert np.array_equal(exported.serve(IMAGES), expected)


def test_export_contains_the_words_of_a_table(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("a\nb\n")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    module = tf.train.Checkpoint()
    words = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"),
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    module.table = tf.lookup.StaticHashTable(words, -1)
    module.trainable_variables = []

    @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 3])])
    def call(images):
        return mean(images) + tf.cast(module.table.lookup(tf.constant("b")), tf.float32)

    module.__call__ = call
    tf.saved_model.save(module, str(tmp_path / "module"))
    make_network(tmp_path / "module", trainable=False).save(tmp_path / "network.keras")
    shutil.rmtree(tmp_path / "module")
    (tmp_path / "words.txt").unlink()
    network = keras.models.load_model(tmp_path / "network.keras")
    network.export(tmp_path / "export", verbose=False)
    expected = network(IMAGES)
    assert np.allclose(expected, IMAGES.mean((1, 2)) + 1)
    # A network's copy of the words is deleted with it (not in Python 3.13 after an export).
    (copy,) = (tmp_path / "temporary").glob("module-*")
    other = keras.models.load_model(tmp_path / "network.keras")
    assert len(list((tmp_path / "temporary").glob("module-*"))) == 2
    del other
    gc.collect()
    assert list((tmp_path / "temporary").glob("module-*")) == [copy]
    assert np.array_equal(tf.saved_model.load(tmp_path / "export").serve(IMAGES), expected)


def test_loaded_network_can_be_trained(handle, tmp_path):
    make_network(handle, trainable=True).save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(again(IMAGES, training=True)) + sum(again.losses)
    assert tape.gradient(loss, again.trainable_variables)[0] is not None
    assert len(again.losses) == 1


def test_save_weights_and_load_weights(handle, tmp_path):
    network = make_network(handle, trainable=True)
    network.trainable_variables[0].assign(np.full((3, 5), 0.25))
    network.save_weights(tmp_path / "network.weights.h5")
    again = make_network(handle, trainable=False)
    again.load_weights(tmp_path / "network.weights.h5")
    assert np.array_equal(again(IMAGES), network(IMAGES))


def test_tf1_module_is_saved_whole(tmp_path):
    save_tf1_module(tmp_path / "module")
    network = make_network(tmp_path / "module", trainable=False)
    assert np.allclose(network(IMAGES), features_of(IMAGES), atol=1e-5)
    network.save(tmp_path / "network.keras")
    shutil.rmtree(tmp_path / "module")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert np.array_equal(again(IMAGES), network(IMAGES))
    again.export(tmp_path / "export", verbose=False)
    exported = tf.saved_model.load(tmp_path / "export")
    assert np.array_equal(exported.serve(IMAGES), network(IMAGES))


def test_tf1_module_cannot_be_fine_tuned(tmp_path):
    save_tf1_module(tmp_path / "module")
    with pytest.raises(UserError, match="--no_fine_tuning"):
        HubLayer(tmp_path / "module", trainable=True)


def test_float32_under_mixed_precision(handle):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = make_network(handle, trainable=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert network(IMAGES).dtype == tf.float32
    assert np.array_equal(network(IMAGES), tf.saved_model.load(handle)(IMAGES))


def test_sha256_pins_the_module(handle):
    assert HubLayer(handle, sha256=hash_module(handle)).module.image_size is None
    with pytest.raises(UserError, match="hub_sha256"):
        HubLayer(handle, sha256="0" * 64)


def test_layer_without_its_file(handle):
    network = make_network(handle, trainable=False)
    with pytest.raises(UserError, match=r"\.keras file"):
        keras.Model.from_config(network.get_config())(IMAGES)


def test_values_of_another_module_are_refused(handle):
    layer = HubLayer(handle)
    with pytest.raises(ValueError, match="1 values for the 2 variables of a module"):
        layer.load_own_variables({"0": np.zeros((3, 5))})


def mean(images):
    return tf.reduce_mean(tf.cast(images, tf.float32), [1, 2])


IMAGE = r"float32 of shape \(None, 6, 6, 3\)"


@pytest.mark.parametrize(
    ("call", "shape", "dtype", "words"),
    [
        (
            lambda text: tf.strings.to_number(text)[:, None],
            [None],
            tf.string,
            rf"takes string of shape \(None,\), not images: {IMAGE}",
        ),
        (
            mean,
            [None, 6, 6, 3],
            tf.uint8,
            rf"takes uint8 of shape \(None, 6, 6, 3\), not .+{IMAGE}",
        ),
        (
            mean,
            [None, 6, 6, 1],
            tf.float32,
            r"takes float32 of shape \(None, 6, 6, 1\), not images",
        ),
        (mean, [1, 6, 6, 3], tf.float32, r"returns float32 of shape \(1, 3\)"),
        (
            lambda images: images,
            [None, None, None, 3],
            tf.float32,
            rf"returns {IMAGE} for {IMAGE}",
        ),
        (
            lambda images: tf.reshape(images, [tf.shape(images)[0], -1]),
            [None, None, None, 3],
            tf.float32,
            r"returns float32 of shape \(None, None\)",
        ),
        (
            lambda images: tf.cast(mean(images), tf.int32),
            [None, 6, 6, 3],
            tf.float32,
            r"returns int32 of shape \(None, 3\)",
        ),
        (
            lambda images: {"boxes": images, "scores": mean(images)},
            [None, 6, 6, 3],
            tf.float32,
            r"/module .*\(boxes, scores\)",
        ),
    ],
)
def test_check_images_refuses_other_modules(tmp_path, call, shape, dtype, words):
    save_call(tmp_path / "module", call, *shape, dtype=dtype)
    with pytest.raises(UserError, match=words) as caught:
        HubLayer(tmp_path / "module").check_images((6, 6, 3))
    assert "\n" not in str(caught.value)


def test_check_images_refuses_other_signatures(tmp_path):
    module = tf.train.Checkpoint()

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([], tf.float32)]
    )
    def call(images, scale):
        return mean(images) * scale

    module.__call__ = call
    module.trainable_variables = []
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match=rf"module .* for {IMAGE}: ") as caught:
        HubLayer(tmp_path).check_images((6, 6, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["default", "features"])
def test_named_features(tmp_path, name):
    both = {"default": {"aside": IMAGES[:1]}, "features": {}}[name]
    save_call(tmp_path, lambda images: {name: mean(images), **both}, None, 6, 6, 3)
    layer = HubLayer(tmp_path)
    layer.check_images((6, 6, 3))
    assert np.allclose(layer(IMAGES), IMAGES.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("handle", ["https://example.org/module", "/somewhere"])
def test_file_without_its_module_reaches_nowhere(handle, monkeypatch):
    def refuse(*_):
        raise AssertionError("it looked for the module")

    monkeypatch.setattr(hub_layer, "resolve_module", refuse)
    for config in ({"handle": handle}, {"handle": handle, "outputs": None, "name": "base"}):
        with pytest.raises(UserError, match=f"{handle} has no module in its file"):
            HubLayer.from_config(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("loop", "0.5 s"),
        ("loop_on_white", "0.5 s"),
        ("loop_later", "0.5 s"),
        ("memory", "0.54 GB"),
    ],
)
def test_module_without_end_is_refused(tmp_path, kind, reason):
    worker = Worker([kind, str(tmp_path)], module="tests.helpers.endless_module")
    code, log = worker.finish()
    assert code == 1
    line = log.splitlines()[-1]
    assert re.search(f"error: the module .* does not come to an end: .* more than {reason}", line)
