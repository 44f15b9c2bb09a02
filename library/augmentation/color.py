"""Color changes. Each is an affine map of (red, green, blue), so that several cost like one.

A change is a function of (mean color, strength, seed) that returns a 4 x 4 matrix, by which the row
(red, green, blue, 1) of each pixel is multiplied. Gray stays gray: what a matrix adds, it adds to
all three colors. Consecutive changes are multiplied first; then the pixels are read once, and only
then clipped to [0, 255].
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from library.inputs.decoding import to_uint8

# Weights of the colors in perceived brightness (ITU-R BT.601), as in JPEG.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# How many pixels are multiplied at once, if their number is divisible by it.
_PIXELS_PER_ROW = 4


def _matrix(rgb: ArrayLike = 0.0, shift: float = 0.0, one: float = 0.0) -> np.ndarray:
    """Return a 4 x 4 constant: `rgb` (3 x 3) maps color to color, `shift` is added to each."""
    matrix = np.zeros((4, 4), np.float32)
    matrix[:3, :3] = rgb
    matrix[3, :3] = shift
    matrix[3, 3] = one
    return matrix


# Every change is a weighted sum of these.
_ONE = _matrix(one=1.0)
_COLOR = _matrix(np.eye(3))
_IDENTITY = _COLOR + _ONE
_GRAY = _matrix(np.outer(_LUMA, np.ones(3)))
_SHIFT = _matrix(shift=1.0)
# The hue is rotated in the color space YIQ, where the brightness Y stays as it is.
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]).T
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_Y, _IQ_COSINE, _IQ_SINE = (
    _matrix(_TO_YIQ @ each @ _FROM_YIQ)
    for each in (np.diag([1, 0, 0]), np.diag([0, 1, 1]), [[0, 0, 0], [0, 0, 1], [0, -1, 0]])
)


def brightness(mean: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Add one number to all pixels: up to `strength` of the full range, up or down."""
    return brightness_matrix(255.0 * tf.random.stateless_uniform([], seed, -strength, strength))


def contrast(mean: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Spread pixels from the image's mean brightness, by 1 - strength to 1 + strength."""
    return contrast_matrix(mean, tf.random.stateless_uniform([], seed, 1 - strength, 1 + strength))


def saturation(mean: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Spread colors from gray, by 1 - strength to 1 + strength."""
    return saturation_matrix(tf.random.stateless_uniform([], seed, 1 - strength, 1 + strength))


def hue(mean: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Rotate the hues by up to `strength` of a full turn, either way."""
    return hue_matrix(2 * math.pi * tf.random.stateless_uniform([], seed, -strength, strength))


def grayscale(mean: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Remove all color, with probability `strength`."""
    is_color = tf.random.stateless_uniform([], seed) >= strength
    return saturation_matrix(tf.cast(is_color, tf.float32))


def brightness_matrix(shift: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix that adds a number to each color."""
    return shift * _SHIFT + _IDENTITY


def scale_matrix(factor: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix that multiplies each color."""
    return factor * _COLOR + _ONE


def contrast_matrix(mean: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix that spreads pixels from the brightness of `mean` by a factor."""
    gray = tf.reduce_sum(mean * _LUMA) * _SHIFT
    return factor * (_COLOR - gray) + (gray + _ONE)


def saturation_matrix(factor: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix that spreads colors from gray by a factor."""
    return factor * (_COLOR - _GRAY) + (_GRAY + _ONE)


def hue_matrix(angle: tf.Tensor | float) -> tf.Tensor:
    """Return the matrix that rotates the hues by an angle in radians."""
    return tf.cos(angle) * _IQ_COSINE + tf.sin(angle) * _IQ_SINE + (_Y + _ONE)


def change_colors(
    image: tf.Tensor, changes: Sequence[Callable[[tf.Tensor], tf.Tensor]]
) -> tf.Tensor:
    """Apply functions of the mean color, each returning a matrix, to a uint8 image, in order."""
    pixels = tf.cast(image, tf.float32)
    return to_uint8(multiply_colors(pixels, color_matrix(pixels, changes)))


def color_matrix(
    image: tf.Tensor, changes: Sequence[Callable[[tf.Tensor], tf.Tensor]]
) -> tf.Tensor:
    """Return the 4 x 4 matrix of all changes together, for the mean color of an image."""
    # The mean is one more row, which changes as every pixel does.
    mean = tf.concat([mean_color(image), [1.0]], 0)
    rows = tf.concat([np.eye(4, dtype=np.float32), [mean]], 0)
    for change in changes:
        rows = tf.matmul(rows, change(rows[4, :3]))
    return rows[:4]


def mean_color(pixels: tf.Tensor) -> tf.Tensor:
    """Return the mean of a grid of about 32 x 32 pixels, float32 (3,): as good as that of all."""
    height, width, channels = pixels.shape
    step = max(1, min(height, width) // 32)
    mean = tf.reduce_mean(tf.cast(pixels[::step, ::step], tf.float32), [0, 1])
    return mean if channels == 3 else tf.repeat(mean, 3)


def multiply_colors(pixels: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiply each pixel by a 4 x 4 matrix.

    Args:
        pixels: float32 (height, width, 3 or 1), or a batch of them.
        matrix: float32 (4, 4), or (batch, 4, 4).

    Returns:
        float32 pixels of the same shape, neither rounded nor clipped.
    """
    batch = [-1] * (pixels.shape.rank - 3)
    height, width, channels = pixels.shape[-3:]
    # The shift is the same for all colors, and adding a number is faster than adding a vector.
    kernel, shift = matrix[..., :3, :3], tf.reshape(matrix[..., 3, 0], [*batch, 1, 1, 1])
    if channels == 1:
        # A gray pixel has three equal colors, and their common brightness.
        factor = tf.tensordot(tf.reduce_sum(kernel, -2), _LUMA, 1)
        changed = pixels * tf.reshape(factor, [*batch, 1, 1, 1])
    else:
        # Several pixels at once: rows of 12 numbers times a matrix with the kernel in each block of
        # its diagonal are faster than rows of 3, and than a convolution of 1 x 1.
        count = math.gcd(height * width, _PIXELS_PER_ROW)
        blocks = np.kron(np.eye(count), np.ones((3, 3))).astype(np.float32)
        rows = tf.reshape(pixels, [*batch, height * width // count, 3 * count])
        kernels = tf.tile(kernel, [*[1 for _ in batch], count, count])
        changed = tf.reshape(rows @ (kernels * blocks), [*batch, height, width, 3])
    return changed + shift
