"""Exif's orientation, read and applied by TensorFlow operations alone: TensorFlow has none for it.

What library/dataset/jpeg.py does in Python, for a graph that travels without Python.
"""

import tensorflow as tf

_TAG, _SHORT = 0x0112, 3
# What an entry of a TIFF folder takes, and what of it has to be there.
_ENTRY_BYTES, _NEEDED_BYTES = 12, 10
# A chunk of a PNG has its length, its name, and a checksum at its end.
_CHUNK_BYTES, _EXIF = 12, tuple(b"eXIf")


def read_png_orientation(encoded):
    """Return the orientation, an int32 scalar of 1 to 8, of a PNG's Exif; 1 if there is none."""
    content = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    size = tf.size(content)

    def length_at(position):
        bits = tf.bitwise.left_shift(content[position : position + 4], [24, 16, 8, 0])
        # A negative length would lead backwards, for ever.
        return tf.minimum(tf.bitwise.bitwise_and(tf.reduce_sum(bits), 0x7FFFFFFF), size)

    def goes_on(position, orientation):
        return position + _CHUNK_BYTES <= size

    def step(position, orientation):
        start, length = position + 8, length_at(position)
        orientation = tf.cond(
            tf.reduce_all(tf.equal(content[position + 4 : start], _EXIF)),
            lambda: read_orientation(content[start : start + length]),
            lambda: orientation,
        )
        return start + length + 4, orientation

    is_png = tf.equal(tf.strings.substr(encoded, 0, 8), b"\x89PNG\r\n\x1a\n")
    return tf.while_loop(goes_on, step, [tf.where(is_png, 8, size), tf.constant(1)])[1]


def read_orientation(tiff):
    """Return the orientation in Exif's bytes, int32 (n,), which are a small TIFF; 1 if none."""
    size = tf.cast(tf.size(tiff), tf.int64)
    tiff = tf.cast(tf.pad(tiff, [[0, 16]]), tf.int64)
    is_little = tf.reduce_all(tf.equal(tiff[:2], tf.constant(list(b"II"), tf.int64)))
    is_big = tf.reduce_all(tf.equal(tiff[:2], tf.constant(list(b"MM"), tf.int64)))

    def number(at, count):
        """Return the numbers of `count` bytes at the positions `at`; zeros past the end."""
        places = tf.range(count, dtype=tf.int64)
        at = tf.clip_by_value(at[..., tf.newaxis] + places, 0, size + 15)
        little = tf.constant([256**each for each in range(count)], tf.int64)
        return tf.reduce_sum(
            tf.gather(tiff, at) * tf.where(is_little, little, little[::-1]), axis=-1
        )

    folder = number(tf.constant(4, tf.int64), 4)
    at = folder + 2 + _ENTRY_BYTES * tf.range(number(folder, 2))
    is_it = (
        (at + _NEEDED_BYTES <= size)
        & tf.equal(number(at, 2), _TAG)
        & tf.equal(number(at + 2, 2), _SHORT)
    )
    values = tf.boolean_mask(number(at + 8, 2), is_it)
    # Before them a 1, for where there is none; the first entry counts.
    value = tf.cast(tf.concat([values, [1]], 0)[0], tf.int32)
    is_known = (is_little | is_big) & (value >= 1) & (value <= 8)
    return tf.where(is_known, value, 1)


def turn(pixels, orientation):
    """Return pixels (height, width, channels) as an orientation of 1 to 8 means them to be seen."""

    def turned(number):
        image = pixels
        if number in (2, 3):
            image = image[:, ::-1]
        if number in (3, 4):
            image = image[::-1]
        if number >= 5:
            image = tf.transpose(image, [1, 0, 2])
        if number in (6, 7):
            image = image[:, ::-1]
        if number in (7, 8):
            image = image[::-1]
        return image

    # `number` is bound now: a lambda looks names up when it runs.
    branches = [lambda number=number: turned(number) for number in range(1, 9)]
    return tf.switch_case(orientation - 1, branches)
