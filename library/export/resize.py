"""Shrink an image as the converter does, with TensorFlow operations alone.

library/dataset/pixels.py does it with OpenCV: block averages if the image is much too large, a
low-pass filter, then cubic interpolation; each step rounds to 8 bits. Nearly all pixels are equal
to OpenCV's; a value halfway between two integers may differ by 1.
"""

import math

import tensorflow as tf

from library.dataset.pixels import FILTER_TAPS, MIN_REDUCTION, PASSBAND

# The parameter of OpenCV's cubic interpolation.
_CUBIC = -0.75


def shrink(image: tf.Tensor, size: tf.Tensor, extent: tf.Tensor | None = None) -> tf.Tensor:
    """Resize uint8 pixels (height, width, channels) to a size that is not larger.

    Args:
        image: The pixels.
        size: int32 (height, width). An image of that size is returned unchanged.
        extent: float64 (height, width) of the image in pixels, if it covers only a part of the
            last row and column; None: all of them.
    """
    image_size = tf.shape(image)[:2]
    covered = tf.cast(image_size, tf.float64) if extent is None else extent
    is_resized = tf.reduce_any(tf.not_equal(image_size, size))
    return tf.cond(is_resized, lambda: _resize(image, size, covered), lambda: image)


# A function, because a SavedModel calls it for JPEG and for PNG: tracing takes long.
@tf.function(
    input_signature=[
        tf.TensorSpec([None, None, None], tf.uint8),
        tf.TensorSpec([2], tf.int32),
        tf.TensorSpec([2], tf.float64),
    ],
    autograph=False,
)
def _resize(image: tf.Tensor, size: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    averaged = _average(image, size, extent)
    reduced = extent * (tf.shape(averaged)[:2] / tf.shape(image)[:2])
    return _interpolate(_filter(averaged, _reduction(reduced, size)), size, reduced)


def _reduction(extent: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return how many times larger an image is than `size`, for the edge where it is more."""
    return tf.reduce_max(extent / tf.cast(size, tf.float64))


def _average(image: tf.Tensor, size: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Average blocks of whole pixels until the image is less than 2.4 times too large."""
    block = tf.cast(_reduction(extent, size) / MIN_REDUCTION, tf.int32)
    image_size = tf.shape(image)[:2]

    def average() -> tf.Tensor:
        smaller = tf.maximum(size, image_size // block)
        means = tf.image.resize(image, smaller, "area")
        # OpenCV averages four pixels in integers, rounding up; otherwise it rounds to even.
        is_four = tf.reduce_all(tf.equal(image_size, 2 * smaller))
        return _to_uint8(tf.where(is_four, tf.floor(means + 0.5), tf.round(means)))

    return tf.cond(block > 1, average, lambda: image)


def _filter(image: tf.Tensor, reduction: tf.Tensor) -> tf.Tensor:
    """Apply the low-pass filter along both axes; the image is mirrored at its borders."""
    x = tf.range(-(FILTER_TAPS // 2), FILTER_TAPS // 2 + 1, dtype=tf.float64)
    taps = _sinc(PASSBAND * x / (tf.round(reduction * 1000) / 1000)) * _sinc(
        x / (FILTER_TAPS / 2 + 0.5)
    )
    taps = tf.cast(taps / tf.reduce_sum(taps), tf.float32)
    pixels = tf.cast(image, tf.float32)
    for axis in (1, 0):
        length = tf.shape(image)[axis]
        positions = tf.range(-(FILTER_TAPS // 2), length + FILTER_TAPS // 2) % (2 * length)
        mirrored = tf.gather(pixels, tf.minimum(positions, 2 * length - 1 - positions), axis=axis)
        windows = [slice(start, start + length) for start in range(FILTER_TAPS)]
        shifted = [mirrored[part] if axis == 0 else mirrored[:, part] for part in windows]
        pixels = tf.add_n([taps[index] * shifted[index] for index in range(FILTER_TAPS)])
    return _to_uint8(tf.round(pixels))


def _sinc(x: tf.Tensor) -> tf.Tensor:
    # Close enough to 0 for a sinc of 1, without dividing by 0.
    angle = math.pi * tf.where(x == 0, tf.constant(1e-20, x.dtype), x)
    return tf.sin(angle) / angle


def _interpolate(image: tf.Tensor, size: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Resize by cubic interpolation between four pixels along each axis."""
    pixels = tf.cast(image, tf.float64)
    for axis in (1, 0):
        positions, weights = _cubic(tf.shape(image)[axis], size[axis], extent[axis])
        shape = [-1, 1, 1] if axis == 0 else [-1, 1]
        pixels = tf.add_n(
            [
                tf.gather(pixels, positions[:, index], axis=axis)
                * tf.reshape(weights[:, index], shape)
                for index in range(4)
            ]
        )
    return _to_uint8(tf.round(pixels))


def _cubic(
    length: tf.Tensor, new_length: tf.Tensor, extent: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the positions of the four pixels behind each new one, and their weights.

    Args:
        length: Pixels along the axis.
        new_length: Pixels wanted.
        extent: How many of the pixels the image covers.

    Returns:
        int32 and float64, shape (new_length, 4).
    """
    scale = extent / tf.cast(new_length, tf.float64)
    centers = (tf.range(tf.cast(new_length, tf.float64), dtype=tf.float64) + 0.5) * scale - 0.5
    first = tf.floor(centers)
    x, a = centers - first, _CUBIC
    before = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    left = ((a + 2) * x - (a + 3)) * x * x + 1
    right = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    positions = tf.cast(first, tf.int32)[:, tf.newaxis] + tf.range(-1, 3)
    weights = tf.stack([before, left, right, 1 - before - left - right], 1)
    return tf.clip_by_value(positions, 0, length - 1), weights


def _to_uint8(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)
