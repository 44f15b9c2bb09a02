"""The converter's way of shrinking an image, by TensorFlow operations alone.

What library/dataset/pixels.py does with OpenCV: an average of whole pixels where the image is much
too large, a low-pass filter, then cubic interpolation; each step rounds to 8 bits as there. Nearly
all pixels are the same; where a value lies halfway, one may differ by 1.
"""

import math

import tensorflow as tf

from library.dataset.pixels import FILTER_TAPS, MIN_REDUCTION, PASSBAND

# Of OpenCV's cubic curves.
_SHARPNESS = -0.75


def shrink(image, size):
    """Return uint8 pixels (height, width, channels) resized to `size`, int32 (height, width).

    Either edge of `size` is at most the image's. What has the size already is given as it is.
    """

    def shrunk():
        smaller = _average(image, size)
        filtered = _filter(smaller, _reduction(smaller, size))
        return _interpolate(filtered, size)

    is_there = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
    return tf.cond(is_there, lambda: image, shrunk)


def _reduction(image, size):
    """Return how many times larger the image is than wanted, at the edge where it is more."""
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    return tf.reduce_max(sides / tf.cast(size, tf.float64))


def _average(image, size):
    """Return an image that is less than 2.4 times too large: averaged, whole pixels at a time."""
    whole = tf.cast(_reduction(image, size) / MIN_REDUCTION, tf.int32)
    sides = tf.shape(image)[:2]

    def averaged():
        smaller = tf.maximum(size, sides // whole)
        means = tf.image.resize(image, smaller, "area")
        # Four pixels are averaged in integers, which round up; all else rounds to even.
        is_four = tf.reduce_all(tf.equal(sides, 2 * smaller))
        return _as_pixels(tf.where(is_four, tf.floor(means + 0.5), tf.round(means)))

    return tf.cond(whole > 1, averaged, lambda: image)


def _filter(image, reduction):
    """Apply the low-pass filter to both axes; at the borders the image is mirrored."""
    x = tf.range(-(FILTER_TAPS // 2), FILTER_TAPS // 2 + 1, dtype=tf.float64)
    taps = _sinc(PASSBAND * x / (tf.round(reduction * 1000) / 1000)) * _sinc(
        x / (FILTER_TAPS / 2 + 0.5)
    )
    taps = tf.cast(taps / tf.reduce_sum(taps), tf.float32)
    pixels = tf.cast(image, tf.float32)
    for axis in (1, 0):
        length = tf.shape(image)[axis]
        places = tf.range(-(FILTER_TAPS // 2), length + FILTER_TAPS // 2) % (2 * length)
        mirrored = tf.gather(pixels, tf.minimum(places, 2 * length - 1 - places), axis=axis)
        parts = [slice(each, each + length) for each in range(FILTER_TAPS)]
        moved = [mirrored[part] if axis == 0 else mirrored[:, part] for part in parts]
        pixels = tf.add_n([taps[each] * moved[each] for each in range(FILTER_TAPS)])
    return _as_pixels(tf.round(pixels))


def _sinc(x):
    # Near enough to 0 for a sinc of 1, and still a number to divide by.
    angle = math.pi * tf.where(x == 0, tf.constant(1e-20, x.dtype), x)
    return tf.sin(angle) / angle


def _interpolate(image, size):
    """Interpolate to the size by cubic curves through four pixels each way."""
    pixels = tf.cast(image, tf.float64)
    for axis in (1, 0):
        places, weights = _cubic(tf.shape(image)[axis], size[axis])
        shape = [-1, 1, 1] if axis == 0 else [-1, 1]
        pixels = tf.add_n(
            [
                tf.gather(pixels, places[:, each], axis=axis) * tf.reshape(weights[:, each], shape)
                for each in range(4)
            ]
        )
    return _as_pixels(tf.round(pixels))


def _cubic(length, wanted):
    """Return which four pixels make each wanted one, int32 (wanted, 4), and their weights."""
    scale = tf.cast(length, tf.float64) / tf.cast(wanted, tf.float64)
    centers = (tf.range(tf.cast(wanted, tf.float64), dtype=tf.float64) + 0.5) * scale - 0.5
    first = tf.floor(centers)
    x, a = centers - first, _SHARPNESS
    before = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    left = ((a + 2) * x - (a + 3)) * x * x + 1
    right = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    places = tf.cast(first, tf.int32)[:, tf.newaxis] + tf.range(-1, 3)
    weights = tf.stack([before, left, right, 1 - before - left - right], 1)
    return tf.clip_by_value(places, 0, length - 1), weights


def _as_pixels(values):
    return tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)
