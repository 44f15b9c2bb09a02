"""Tell with TensorFlow operations alone whether an ICC profile is that of sRGB.

It stands for `is_srgb` of library/dataset/pixels.py: what the profile does to a grid of colors
decides. Profiles of a matrix and three curves are read, as cameras and phones write for sRGB:
tables, or the formula with a linear beginning. Any other counts as another color space.
"""

import numpy as np
import tensorflow as tf

from library.dataset.pixels import SRGB_TOLERANCE

# Linear sRGB from XYZ under D50, which profiles use: the inverse of the primaries of sRGB's own
# profile, one in each column.
_FROM_XYZ = np.linalg.inv(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
_LEVELS = np.arange(9) * 255 // 8
_MAX_TAGS = 100
# The type of a formula: (ax + b)^g from d on, below it cx.
_WITH_LINE = 3
_HEADER_BYTES, _TAG_BYTES = 132, 12


# A function, because a SavedModel calls it for JPEG and for PNG: tracing takes long.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def is_srgb_profile(profile: tf.Tensor) -> tf.Tensor:
    """Return whether an ICC profile, a scalar string, is that of sRGB: a bool scalar."""
    content = tf.cast(tf.io.decode_raw(profile, tf.uint8), tf.int64)
    content = tf.pad(content, [[0, _HEADER_BYTES]])

    def read(position: tf.Tensor, byte_count: int = 4) -> tf.Tensor:
        """Return unsigned integers, int64; of places beyond the end, any."""
        offsets = np.arange(byte_count)
        last = tf.size(content, tf.int64) - 1
        places = tf.clip_by_value(tf.cast(position, tf.int64)[..., tf.newaxis] + offsets, 0, last)
        return tf.reduce_sum(tf.gather(content, places) * 256 ** offsets[::-1], axis=-1)

    def read_fixed(position: tf.Tensor) -> tf.Tensor:
        number = read(position)
        signed = tf.where(number >= 2**31, number - 2**32, number)
        return tf.cast(signed, tf.float64) / 65536

    entries = _HEADER_BYTES + _TAG_BYTES * tf.range(tf.minimum(read(tf.constant(128)), _MAX_TAGS))
    names, places = read(entries), read(entries + 4)

    def find_tag(name: bytes) -> tf.Tensor:
        """Return where a tag's data begins, 0 if it is missing."""
        found = tf.boolean_mask(places, tf.equal(names, _number(name)))
        return tf.concat([found, [0]], 0)[0]

    def find_tags(*names: bytes) -> tf.Tensor:
        return tf.stack([find_tag(each) for each in names])[:, tf.newaxis]

    def evaluate_curves(at: tf.Tensor) -> tf.Tensor:
        """Return the values at `_LEVELS` of the curves at these places; NaN of an unknown type."""
        x, count = tf.constant(_LEVELS / 255, tf.float64), read(at + 8)
        at_x = x * tf.cast(count - 1, tf.float64)
        first = tf.cast(tf.floor(at_x), tf.int64)
        low, high = (
            tf.cast(read(at + 12 + 2 * tf.minimum(each, count - 1), 2), tf.float64) / 65535
            for each in (first, first + 1)
        )
        table = low + (high - low) * (at_x - tf.floor(at_x))
        g, a, b, c, d = (read_fixed(at + 12 + 4 * number) for number in range(5))
        formula = tf.where(x >= d, tf.maximum(a * x + b, 0) ** g, c * x)
        is_table = tf.equal(read(at), _number(b"curv")) & (count > 1)
        is_formula = tf.equal(read(at), _number(b"para")) & tf.equal(read(at + 8, 2), _WITH_LINE)
        nan = tf.constant(np.nan, tf.float64)
        return tf.where(is_table, table, tf.where(is_formula, formula, nan))

    curves = tf.meshgrid(*tf.unstack(evaluate_curves(find_tags(b"rTRC", b"gTRC", b"bTRC"))))
    primaries = read_fixed(find_tags(b"rXYZ", b"gXYZ", b"bXYZ") + np.array([8, 12, 16]))
    linear = tf.tensordot(tf.stack(curves, -1), primaries, 1)
    linear = tf.clip_by_value(tf.tensordot(linear, tf.constant(_FROM_XYZ.T), 1), 0, 1)
    shown = tf.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colors = np.stack(np.meshgrid(*[_LEVELS] * 3), -1)
    # Written so that NaN is not sRGB.
    is_near = tf.reduce_all(tf.abs(tf.round(shown * 255) - colors) <= SRGB_TOLERANCE)
    is_matrix = tf.equal(read(tf.constant(16)), _number(b"RGB "))
    is_matrix &= tf.equal(read(tf.constant(20)), _number(b"XYZ "))
    return is_near & is_matrix & tf.equal(find_tag(b"A2B0"), 0)


def _number(name: bytes) -> int:
    return int.from_bytes(name, "big")
