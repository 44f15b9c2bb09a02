"""Changes of place. Each is an affine map of coordinates, so that several cost, and blur, like one.

A change is a function of ((height, width), strength, seed) that gives the 3 x 3 matrix with which
the column (x, y, 1) of a new pixel is multiplied to find where it comes from, in pixels from the
image's center. What lies outside the image is mirrored at its border.
"""

import math

import tensorflow as tf


def rotation(size, strength, seed):
    """Turn by up to `strength` degrees, either way."""
    return rotated(tf.random.stateless_uniform([], seed, -strength, strength))


def shear(size, strength, seed):
    """Slant by up to `strength` (1 is 45 degrees) along each axis."""
    x, y = tf.unstack(tf.random.stateless_uniform([2], seed, -strength, strength))
    return sheared(x, y)


def zoom(size, strength, seed):
    """Show 1 - strength to 1 + strength of the width and height."""
    scale = tf.random.stateless_uniform([], seed, 1 - strength, 1 + strength)
    return _matrix(scale, 0.0, 0.0, 0.0, scale, 0.0)


def translation(size, strength, seed):
    """Shift by up to `strength` of height and width, with fractions of pixels."""
    y, x = tf.unstack(tf.random.stateless_uniform([2], seed, -strength, strength))
    return translated(x * size[1], y * size[0])


def rotated(degrees):
    """Return the matrix of a turn."""
    sine, cosine = tf.sin(degrees * (math.pi / 180)), tf.cos(degrees * (math.pi / 180))
    return _matrix(cosine, -sine, 0.0, sine, cosine, 0.0)


def sheared(x, y):
    """Return the matrix of a slant."""
    return _matrix(1.0, x, 0.0, y, 1.0, 0.0)


def translated(x, y):
    """Return the matrix of a shift, in pixels."""
    return _matrix(1.0, 0.0, x, 0.0, 1.0, y)


def move(image, changes):
    """Apply functions of (height, width), each giving a matrix, to a uint8 image, in order."""
    matrix = None
    for change in changes:
        # Going back from the new pixel: through the last change first.
        step = change(tuple(map(float, image.shape[:2])))
        matrix = step if matrix is None else tf.matmul(matrix, step)
    return warp(image, matrix)


def warp(image, matrix):
    """Return a uint8 image of the same shape, each pixel from where the matrix says."""
    height, width, _ = image.shape
    center = translated((width - 1) / 2, (height - 1) / 2)
    back = translated((1 - width) / 2, (1 - height) / 2)
    place = tf.reshape(tf.matmul(center, tf.matmul(matrix, back)), [1, 9])[:, :8]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        # As float32: from uint8 the kernel gives its fractions cut off, so darker.
        images=tf.cast(image[tf.newaxis], tf.float32),
        transforms=place,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )[0]
    return tf.cast(moved + 0.5, tf.uint8)


def _matrix(*numbers):
    return tf.reshape(tf.stack([tf.cast(each, tf.float32) for each in (*numbers, 0, 0, 1)]), [3, 3])
