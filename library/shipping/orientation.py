"""Exif's orientation, read and applied by TensorFlow operations alone: TensorFlow has none for it.

What library/dataset/jpeg.py does in Python, for a graph that travels without Python.
"""

import tensorflow as tf

_FILL, _SCAN, _END, _APP1 = 0xFF, 0xDA, 0xD9, 0xE1
_EXIF = tuple(b"Exif\0\0")
_TAG, _SHORT = 0x0112, 3
# What an entry of a TIFF folder takes, and what of it has to be there.
_ENTRY_BYTES, _NEEDED_BYTES = 12, 10


def read_orientation(encoded):
    """Give the orientation, an int32 scalar of 1 to 8, of an encoded image; 1 if it tells none.

    Of a JPEG: walks its segments up to the first scan, and reads the last Exif among them.
    """
    content = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    size = tf.size(content)
    # Reading past the end gives zeros, in the place of conditions at every step.
    content = tf.pad(content, [[0, 16]])

    def goes_on(position, orientation):
        position = tf.minimum(position, size)
        marker = content[position + 1]
        is_segment = tf.equal(content[position], _FILL) & (marker != _SCAN) & (marker != _END)
        return (position + 4 <= size) & is_segment

    def step(position, orientation):
        marker = content[position + 1]
        length = content[position + 2] * 256 + content[position + 3]
        is_exif = tf.equal(marker, _APP1) & tf.reduce_all(
            tf.equal(content[position + 4 : position + 10], _EXIF)
        )
        orientation = tf.cond(
            is_exif,
            lambda: _orientation_of(
                content[position + 10 : tf.minimum(position + 2 + length, size)]
            ),
            lambda: orientation,
        )
        is_fill = tf.equal(marker, _FILL)
        return position + tf.where(is_fill, 1, 2 + length), orientation

    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    start = tf.where(is_jpeg, 2, size)
    return tf.while_loop(goes_on, step, [start, tf.constant(1)])[1]


def turn(pixels, orientation):
    """Give pixels (height, width, channels) as an orientation of 1 to 8 means them to be seen."""

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


def _orientation_of(tiff):
    """Give the orientation in Exif's bytes, int32 (n,), which are a small TIFF; 1 if none."""
    size = tf.cast(tf.size(tiff), tf.int64)
    tiff = tf.cast(tf.pad(tiff, [[0, 16]]), tf.int64)
    is_little = tf.reduce_all(tf.equal(tiff[:2], tf.constant(list(b"II"), tf.int64)))
    is_big = tf.reduce_all(tf.equal(tiff[:2], tf.constant(list(b"MM"), tf.int64)))

    def number(at, count):
        """Give the numbers of `count` bytes at the positions `at`; zeros past the end."""
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
