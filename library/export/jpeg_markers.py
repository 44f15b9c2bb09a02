"""What a JPEG's markers say, read by TensorFlow operations alone.

What library/dataset/jpeg.py does in Python, for a graph that travels without Python.
"""

from typing import NamedTuple

import tensorflow as tf

from library.export.orientation import read_orientation

_FILL, _SCAN, _END, _APP1, _APP14 = 0xFF, 0xDA, 0xD9, 0xE1, 0xEE
# The first frame is the baseline one; C4, C8 and CC among them are no frames.
_BASELINE, _LAST_FRAME, _NO_FRAMES = 0xC0, 0xCF, (0xC4, 0xC8, 0xCC)
_EXIF, _ADOBE, _RGB = tuple(b"Exif\0\0"), tuple(b"Adobe"), tuple(b"RGB")


class Markers(NamedTuple):
    """Scalars: Exif's orientation, 1 to 8 (int32); is it baseline, and Y, Cb, Cr or Y (bool)."""

    orientation: object
    is_baseline: object
    is_ycc: object


def read_markers(encoded):
    """Return the Markers of an encoded image: of a JPEG, all up to its first scan."""
    content = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    size = tf.size(content)
    # Reading past the end gives zeros, in the place of conditions at every step.
    content = tf.pad(content, [[0, 20]])

    def begins(position, letters):
        return tf.reduce_all(tf.equal(content[position : position + len(letters)], letters))

    def goes_on(position, markers):
        position = tf.minimum(position, size)
        marker = content[position + 1]
        is_segment = tf.equal(content[position], _FILL) & (marker != _SCAN) & (marker != _END)
        return (position + 4 <= size) & is_segment

    def step(position, markers):
        marker = content[position + 1]
        body = position + 4
        after = position + 2 + content[position + 2] * 256 + content[position + 3]
        orientation, is_baseline, is_ycc = markers
        orientation = tf.cond(
            tf.equal(marker, _APP1) & begins(body, _EXIF),
            lambda: read_orientation(content[body + len(_EXIF) : tf.minimum(after, size)]),
            lambda: orientation,
        )
        is_frame = (marker >= _BASELINE) & (marker <= _LAST_FRAME)
        is_frame &= tf.reduce_all(tf.not_equal(marker, _NO_FRAMES))
        # Bits of a sample, height, width, components; then three bytes for each, its name first.
        is_plain = tf.equal(marker, _BASELINE) & tf.equal(content[body], 8)
        is_baseline = tf.where(is_frame, is_plain, is_baseline)
        names = content[body + 6 : body + 15 : 3]
        is_rgb = tf.equal(content[body + 5], 3) & tf.reduce_all(tf.equal(names, _RGB))
        is_ycc &= ~(is_frame & is_rgb)
        is_adobe = tf.equal(marker, _APP14) & begins(body, _ADOBE)
        is_ycc = tf.where(is_adobe, tf.equal(content[body + 11], 1), is_ycc)
        following = tf.where(tf.equal(marker, _FILL), position + 1, after)
        return following, Markers(orientation, is_baseline, is_ycc)

    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    start = tf.where(is_jpeg, 2, size)
    none = Markers(tf.constant(1), tf.constant(False), tf.constant(True))
    return tf.while_loop(goes_on, step, [start, none])[1]
