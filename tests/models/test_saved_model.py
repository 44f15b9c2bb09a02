import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.models.saved_model import load_module

IMAGES = np.random.default_rng(1).uniform(0, 1, (4, 6, 6, 3)).astype(np.float32)


def save_module(folder, image_size=(None, None), seed=0, learned_bias=False):
    """Save a small module in the reusable TF2 form: training, variables, regularization losses."""
    module = tf.train.Checkpoint()
    kernel = tf.Variable(
        np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32), name="block_1/kernel"
    )
    mean = tf.Variable(tf.zeros(5), trainable=False, name="block_1/mean")

    bias = tf.Variable(tf.zeros(5), name="block_2/bias")
    learned = [kernel, bias] if learned_bias else [kernel]

    @tf.function
    def call(images, training=False):
        features = tf.reduce_mean(images, [1, 2]) @ kernel
        if learned_bias:
            features += bias
        if training:
            mean.assign(0.9 * mean + 0.1 * tf.reduce_mean(features, 0))
        return features - mean

    @tf.function(input_signature=[])
    def penalty():
        return 0.5 * tf.reduce_sum(kernel**2)

    images = tf.TensorSpec([None, *image_size, 3], tf.float32)
    for training in (True, False):
        call.get_concrete_function(images, training=training)
    module.__call__ = call
    module.variables = [*learned, mean]
    module.trainable_variables = learned
    module.regularization_losses = [penalty]
    tf.saved_model.save(module, str(folder))


def save_tf1_module(folder):
    """Save the same features in TensorFlow Hub's first format."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 3])
        start = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
        kernel = tf.compat.v1.get_variable("kernel", initializer=start, use_resource=True)
        features = tf.reduce_mean(images, [1, 2]) @ kernel
        session.run(kernel.initializer)
        signature = tf.compat.v1.saved_model.predict_signature_def(
            {"images": images}, {"default": features}
        )
        builder = tf.compat.v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, [], {"default": signature})
        builder.save()
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")


def features_of(images):
    return images.mean((1, 2)) @ np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def test_the_reusable_form(tmp_path):
    save_module(tmp_path)
    module = load_module(tmp_path)
    assert np.allclose(module.call(IMAGES, training=False), features_of(IMAGES), atol=1e-5)
    assert sorted(zip(module.are_trainable, (v.name for v in module.variables), strict=True)) == [
        (False, "block_1/mean:0"),
        (True, "block_1/kernel:0"),
    ]
    assert module.image_size is None
    assert module.can_be_trained
    kernel = module.variables[module.are_trainable.index(True)]
    assert float(module.penalties[0]()) == pytest.approx(0.5 * np.sum(kernel.numpy() ** 2))


def test_the_image_size_is_read(tmp_path):
    save_module(tmp_path, image_size=(6, 7))
    assert load_module(tmp_path).image_size == (6, 7)


def test_the_first_format(tmp_path):
    save_tf1_module(tmp_path / "module")
    module = load_module(tmp_path / "module")
    assert np.allclose(module.call(IMAGES, training=False), features_of(IMAGES), atol=1e-5)
    assert module.image_size == (6, 6)
    assert len(module.variables) == 1
    assert not module.can_be_trained


def test_a_model_that_is_no_module_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UserError, match="not in a form that TensorFlow Hub describes"):
        load_module(tmp_path)


def test_a_damaged_graph_is_one_line(tmp_path):
    save_module(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff nothing")
    with pytest.raises(UserError, match=r"is damaged: saved_model\.pb cannot be parsed"):
        load_module(tmp_path)


def test_damaged_weights_are_one_line(tmp_path):
    save_module(tmp_path)
    (tmp_path / "variables" / "variables.index").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged or no SavedModel: ") as caught:
        load_module(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_what_was_cut_in_the_cache_can_be_fetched_again(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "module"
    save_module(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:20])
    with pytest.raises(
        UserError, match=rf"is damaged.+; delete {folder}, and it is fetched again$"
    ):
        load_module(folder)


@pytest.mark.parametrize(
    ("reach", "word"),
    [
        (lambda: tf.io.write_file("/somewhere", "something"), "WriteFile"),
        (lambda: tf.print("something", output_stream="file:///somewhere"), "PrintV2"),
        (lambda: tf.data.TextLineDataset("/etc/passwd").reduce("", lambda a, b: a + b), "TextLine"),
        (lambda: tf.numpy_function(lambda: 1.0, [], tf.float64), "PyFunc"),
    ],
)
def test_a_graph_that_reaches_outside_is_refused(tmp_path, reach, word):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def call(images):
        reach()
        return tf.reduce_mean(images, [1, 2])

    module.__call__ = call
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match=rf"refused: its graph reaches outside itself \(.*{word}"):
        load_module(tmp_path)


def test_a_graph_that_prints_is_not_refused(tmp_path):
    module = tf.train.Checkpoint()

    @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 3])])
    def call(images):
        tf.print("a batch")
        return tf.reduce_mean(images, [1, 2])

    module.__call__ = call
    module.trainable_variables = []
    tf.saved_model.save(module, str(tmp_path))
    assert np.allclose(load_module(tmp_path).call(IMAGES, False), IMAGES.mean((1, 2)), atol=1e-6)


def test_a_module_that_gives_several_things_is_refused(tmp_path):
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(
        lambda images: (images, images), input_signature=[tf.TensorSpec([None, 6, 6, 3])]
    )
    module.trainable_variables = []
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match="the module gives tuple, not one tensor of features"):
        load_module(tmp_path).call(IMAGES, training=False)
