"""Changes of color. Each is an affine map of (red, green, blue), so that several cost like one.

A change is a function of (mean color, strength, seed) that gives a 4 x 4 matrix A, with which the
row (red, green, blue, 1) of each pixel is multiplied. Gray stays gray: what a matrix adds, it adds
to all three colors. Matrices of changes in a row are multiplied first; the pixels are gone through
once, and are cut to [0, 255] only then.
"""

import math

import numpy as np
import tensorflow as tf

from library.inputs.decoding import to_uint8

# What each color adds to perceived brightness (ITU-R BT.601), as JPEG has it.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# How many pixels are multiplied at once, where their number is a multiple of that.
_AT_ONCE = 4


def _matrix(rgb=None, shift=0.0, one=0.0):
    """Return a 4 x 4 constant: `rgb` (3 x 3) from color to color, `shift` added to each."""
    matrix = np.zeros((4, 4), np.float32)
    if rgb is not None:
        matrix[:3, :3] = rgb
    matrix[3, :3] = shift
    matrix[3, 3] = one
    return matrix


# All changes are sums of these, times a number.
_ONE = _matrix(one=1.0)
_COLOR = _matrix(np.eye(3))
_SAME = _COLOR + _ONE
_GREY = _matrix(np.outer(_LUMA, np.ones(3)))
_SHIFT = _matrix(shift=1.0)
# A turn of the hue, in the color space YIQ: brightness stays, the other two are turned.
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]).T
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_KEPT, _COSINE, _SINE = (
    _matrix(_TO_YIQ @ each @ _FROM_YIQ)
    for each in (np.diag([1, 0, 0]), np.diag([0, 1, 1]), [[0, 0, 0], [0, 0, 1], [0, -1, 0]])
)


def brightness(mean, strength, seed):
    """Add one number to all pixels: up to `strength` of the full range, up or down."""
    return brightened(255.0 * tf.random.stateless_uniform([], seed, -strength, strength))


def contrast(mean, strength, seed):
    """Spread pixels from the image's mean brightness, by 1 - strength to 1 + strength."""
    return contrasted(mean, tf.random.stateless_uniform([], seed, 1 - strength, 1 + strength))


def saturation(mean, strength, seed):
    """Spread colors from gray, by 1 - strength to 1 + strength."""
    return saturated(tf.random.stateless_uniform([], seed, 1 - strength, 1 + strength))


def hue(mean, strength, seed):
    """Turn the hues by up to `strength` of a full turn, either way."""
    angle = 2 * math.pi * tf.random.stateless_uniform([], seed, -strength, strength)
    return tf.cos(angle) * _COSINE + tf.sin(angle) * _SINE + (_KEPT + _ONE)


def grayscale(mean, strength, seed):
    """Take all color away, with probability `strength`."""
    is_kept = tf.random.stateless_uniform([], seed) >= strength
    return saturated(tf.cast(is_kept, tf.float32))


def brightened(shift):
    """Return the matrix that adds a number to each color."""
    return shift * _SHIFT + _SAME


def multiplied(factor):
    """Return the matrix that multiplies each color."""
    return factor * _COLOR + _ONE


def contrasted(mean, factor):
    """Return the matrix that spreads pixels from the brightness of `mean` by a factor."""
    gray = tf.reduce_sum(mean * _LUMA) * _SHIFT
    return factor * (_COLOR - gray) + (gray + _ONE)


def saturated(factor):
    """Return the matrix that spreads colors from gray by a factor."""
    return factor * (_COLOR - _GREY) + (_GREY + _ONE)


def change_colors(image, changes):
    """Apply functions of the mean color, each giving a matrix, to a uint8 image, in order."""
    pixels = tf.cast(image, tf.float32)
    mean = mean_color(pixels)
    # The mean goes the way of every pixel: one more row.
    rows = tf.concat([np.eye(4, dtype=np.float32), [tf.concat([mean, [1.0]], 0)]], 0)
    for change in changes:
        rows = tf.matmul(rows, change(rows[4, :3]))
    return paint(pixels, rows[:4])


def mean_color(pixels):
    """Return float32 (3,): mean of a grid of about 32 x 32 pixels, which tells as much as all."""
    height, width, channels = pixels.shape
    step = max(1, min(height, width) // 32)
    mean = tf.reduce_mean(tf.cast(pixels[::step, ::step], tf.float32), [0, 1])
    return mean if channels == 3 else tf.repeat(mean, 3)


def paint(pixels, matrix):
    """Return uint8 pixels from float32 ones (height, width, 3 or 1), through a 4 x 4 matrix."""
    # The shift is the same for all colors, and a number is added faster than a vector.
    kernel, shift = matrix[:3, :3], matrix[3, 0]
    if pixels.shape[-1] == 1:
        # A gray pixel has three equal colors, and is as bright as the three together.
        changed = pixels * tf.tensordot(tf.reduce_sum(kernel, 0), _LUMA, 1)
    else:
        # Several pixels at once: rows of 12 numbers, times a matrix with the kernel in each block
        # of its diagonal, are faster than rows of 3, and than a convolution of 1 x 1.
        height, width, _ = pixels.shape
        count = math.gcd(height * width, _AT_ONCE)
        blocks = np.kron(np.eye(count), np.ones((3, 3))).astype(np.float32)
        rows = tf.reshape(pixels, [-1, 3 * count])
        changed = tf.reshape(rows @ (tf.tile(kernel, [count, count]) * blocks), pixels.shape)
    return to_uint8(changed + shift)
