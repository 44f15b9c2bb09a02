"""Geometric changes. Each is an affine map of coordinates: several cost, and blur, like one.

A change is a function of ((height, width), strength, seed) that returns the 3 x 3 matrix that maps
the column (x, y, 1) of an output pixel to its source, in pixels from the image's center. Sources
outside the image are mirrored at its border.
"""

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Size = tuple[float, float]


def rotation(size: Size, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Rotate by up to `strength` degrees, either way."""
    return rotation_matrix(tf.random.stateless_uniform([], seed, -strength, strength))


def shear(size: Size, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Slant by up to `strength` (1 is 45 degrees) along each axis."""
    x, y = tf.unstack(tf.random.stateless_uniform([2], seed, -strength, strength))
    return shear_matrix(x, y)


def zoom(size: Size, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Show 1 - strength to 1 + strength of the width and height."""
    scale = tf.random.stateless_uniform([], seed, 1 - strength, 1 + strength)
    return _matrix(scale, 0.0, 0.0, 0.0, scale, 0.0)


def translation(size: Size, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Shift by up to `strength` of height and width, with fractions of pixels."""
    y, x = tf.unstack(tf.random.stateless_uniform([2], seed, -strength, strength))
    return translation_matrix(x * size[1], y * size[0])


def mirror_matrix(x: tf.Tensor | bool, y: tf.Tensor | bool) -> tf.Tensor:
    """Return the matrix that mirrors left and right if `x`, top and bottom if `y`."""
    return _matrix(tf.where(x, -1.0, 1.0), 0.0, 0.0, 0.0, tf.where(y, -1.0, 1.0), 0.0)


def rotation_matrix(degrees: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix of a rotation."""
    sine, cosine = tf.sin(degrees * (math.pi / 180)), tf.cos(degrees * (math.pi / 180))
    return _matrix(cosine, -sine, 0.0, sine, cosine, 0.0)


def shear_matrix(x: tf.Tensor | float, y: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix of a slant along each axis."""
    return _matrix(1.0, x, 0.0, y, 1.0, 0.0)


def translation_matrix(x: tf.Tensor | float, y: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix of a shift, in pixels."""
    return _matrix(1.0, 0.0, x, 0.0, 1.0, y)


def change_geometry(image: tf.Tensor, changes: Sequence[Callable[[Size], tf.Tensor]]) -> tf.Tensor:
    """Apply functions of (height, width), each returning a matrix, to a uint8 image, in order."""
    return warp(image, geometry_matrix(image.shape, changes))


def geometry_matrix(
    shape: tf.TensorShape, changes: Sequence[Callable[[Size], tf.Tensor]]
) -> tf.Tensor:
    """Return the 3 x 3 matrix of all changes together, for images of (height, width, channels)."""
    size = (float(shape[0]), float(shape[1]))
    # From the output back to the source: through the last change first.
    return functools.reduce(tf.matmul, [change(size) for change in changes])


def warp(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Return a uint8 image of the same shape whose pixels come from where the matrix maps them."""
    # As float32: from uint8, the kernel truncates its fractions, so the image gets darker.
    warped = warp_batch(tf.cast(image[tf.newaxis], tf.float32), matrix)[0]
    return tf.cast(warped + 0.5, tf.uint8)


def warp_batch(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Return float32 images of the same shape whose pixels come from where the matrices map them.

    Args:
        images: float32 (batch, height, width, channels).
        matrices: float32 (batch, 3, 3), or (3, 3) for one image.
    """
    height, width = images.shape[1:3]
    center = translation_matrix((width - 1) / 2, (height - 1) / 2)
    back = translation_matrix((1 - width) / 2, (1 - height) / 2)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.reshape(tf.matmul(center, tf.matmul(matrices, back)), [-1, 9])[:, :8],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def _matrix(*numbers):
    return tf.reshape(tf.stack([tf.cast(each, tf.float32) for each in (*numbers, 0, 0, 1)]), [3, 3])
