"""Tone operations by a given amount, as in Pillow: RandAugment and its kin choose from them.

All take and return a uint8 image, shape (height, width, channels).
"""

import numpy as np
import tensorflow as tf

from library.inputs.decoding import to_uint8


def invert(image: tf.Tensor) -> tf.Tensor:
    """Turn light into dark."""
    return 255 - image


def solarize(image: tf.Tensor, amount: tf.Tensor | float) -> tf.Tensor:
    """Invert the values of at least 256 - amount."""
    return tf.where(tf.cast(image, tf.float32) >= 256.0 - amount, 255 - image, image)


def posterize(image: tf.Tensor, bits: tf.Tensor | float) -> tf.Tensor:
    """Clear the lowest `bits` bits, rounded, of each value."""
    mask = tf.bitwise.left_shift(tf.constant(255), tf.cast(tf.round(bits), tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(mask & 255, tf.uint8))


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch each channel to the full range."""
    pixels = tf.cast(image, tf.float32)
    low = tf.reduce_min(pixels, [0, 1])
    span = tf.reduce_max(pixels, [0, 1]) - low
    # A constant channel stays as it is.
    scale = tf.where(span > 0, 255.0 / tf.maximum(span, 1.0), 1.0)
    return to_uint8((pixels - tf.where(span > 0, low, 0.0)) * scale)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalize the histogram of each channel."""
    channels = [_equalize_channel(image[..., each]) for each in range(image.shape[-1])]
    return tf.stack(channels, -1)


def sharpen(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Blend with a smoothed image: factor 0 is smooth, 1 the image itself, 2 sharpened."""
    pixels = tf.cast(image, tf.float32)
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13
    kernel = tf.tile(kernel[..., tf.newaxis, tf.newaxis], [1, 1, image.shape[-1], 1])
    smooth = tf.nn.depthwise_conv2d(pixels[tf.newaxis], kernel, [1, 1, 1, 1], "VALID")[0]
    # The border lacks neighbors to be smoothed with, and stays as it is.
    inside = pixels[1:-1, 1:-1]
    changed = smooth + factor * (inside - smooth)
    edges = [[1, 1], [1, 1], [0, 0]]
    is_inside = np.pad(np.ones(inside.shape, bool), edges)
    return to_uint8(tf.where(is_inside, tf.pad(changed, edges), pixels))


def _equalize_channel(channel):
    values = tf.cast(channel, tf.int32)
    histogram = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
    total, last = tf.reduce_sum(histogram), histogram[tf.reduce_max(values)]
    step = (total - last) // 255
    # Pillow's lookup table: the number of darker pixels, in steps of which 255 make the total.
    darker = tf.cumsum(histogram, exclusive=True)
    table = tf.clip_by_value((darker + step // 2) // tf.maximum(step, 1), 0, 255)
    return tf.where(step > 0, tf.cast(tf.gather(table, values), tf.uint8), channel)
