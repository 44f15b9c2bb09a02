"""Batch normalization in training by one op of TensorFlow, which Keras 3 makes from a dozen.

Each of those reads or writes all activations (keras-core issue 225). With the fused op a step of
MobileNetV2 on a CPU takes two thirds of the time.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def fuse_batch_normalization(network: keras.Model) -> None:
    """Make a network's BatchNormalization layers use the fused op when they train on a CPU.

    Their weights and statistics stay what they are, and so does what is saved.

    Args:
        network: The network; layers with other axes than the last one, masks, or statistics
            synchronized over replicas compute as before.
    """
    if tf.config.list_logical_devices("GPU"):
        return
    for layer in network._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization and not layer.renorm:
            # A subclass would be part of the saved model, which could then be loaded only with this
            # package. test_keras_does_not_fuse tells when Keras needs this no longer.
            layer.call = _fused_call(layer)


def _fused_call(layer: keras.layers.BatchNormalization) -> Callable[..., Any]:
    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or not (training and layer.trainable and _is_usual(layer, inputs)):
            return type(layer).call(layer, inputs, training=training, mask=mask)
        # Like Keras, in float32 whatever the dtype of the layer.
        pixels = tf.cast(inputs, tf.float32)
        channels = pixels.shape[-1]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            pixels,
            tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones([channels]),
            tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros([channels]),
            epsilon=layer.epsilon,
        )
        # The op returns the unbiased variance, of which Keras keeps no average.
        count = tf.cast(tf.size(pixels) // channels, tf.float32)
        variance *= (count - 1) / count
        for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            average.assign(average * layer.momentum + value * (1 - layer.momentum))
        return tf.cast(outputs, layer.compute_dtype)

    return call


def _is_usual(layer: keras.layers.BatchNormalization, inputs: Any) -> bool:
    return not layer.synchronized and len(inputs.shape) == 4 and layer.axis in (-1, 3)
