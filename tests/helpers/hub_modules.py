"""Small modules in TensorFlow Hub's formats."""

import keras
import numpy as np
import tensorflow as tf

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


def save_call(folder, call, *shape, dtype=tf.float32):
    """Save a module without variables."""
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(call, input_signature=[tf.TensorSpec(shape, dtype)])
    module.trainable_variables = []
    tf.saved_model.save(module, str(folder))


def save_keras_module(folder):
    """Save a Keras 3 network as a module: its file holds each variable twice, one of them dead."""
    pixels = x = keras.Input((6, 6, 3))
    for name in ("block1_conv", "block2_conv"):
        x = keras.layers.Conv2D(2, 3, use_bias=False, name=name)(x)
    x = keras.layers.BatchNormalization(name="block2_bn")(x)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    module = tf.train.Checkpoint(network=network)
    module.__call__ = tf.function(
        lambda images, training=False: network(images, training=training),
        input_signature=[tf.TensorSpec([None, 6, 6, 3])],
    )
    module.variables = [each.value for each in network.variables]
    module.trainable_variables = [each.value for each in network.trainable_variables]
    tf.saved_model.save(module, str(folder))


def save_nameless_module(folder):
    """Save a module whose variables are in no scope."""
    module = tf.train.Checkpoint(a=tf.Variable(tf.ones((3, 4))), b=tf.Variable(tf.ones((4, 5))))
    module.__call__ = tf.function(
        lambda images: tf.reduce_mean(images, [1, 2]) @ module.a @ module.b,
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    module.variables = module.trainable_variables = [module.a, module.b]
    tf.saved_model.save(module, str(folder))
