"""Read and apply the Exif orientation and JPEG markers with TensorFlow operations alone.

TensorFlow has no operation for either. This is library/dataset/jpeg.py for a graph that runs
without Python.
"""

from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

_MARKER, _SCAN, _APP1, _APP2, _APP14 = 0xFF, 0xDA, 0xE1, 0xE2, 0xEE
# The first marker with a segment; those without one, the end and the scan are in a row.
_FIRST_SEGMENT, _NO_SEGMENTS = 0xC0, (0xD0, _SCAN)
# The first frame marker is the baseline one; C4, C8 and CC among them mark other segments.
_BASELINE, _LAST_FRAME, _OTHER_SEGMENTS = 0xC0, 0xCF, (0xC4, 0xC8, 0xCC)
_EXIF, _ADOBE, _RGB = tuple(b"Exif\0\0"), tuple(b"Adobe"), tuple(b"RGB")
_ICC = tuple(b"ICC_PROFILE\0")

_ORIENTATION_TAG = 0x0112
# The types of integers that programs write it in.
_SHORT, _LONG = 3, 4
# What an orientation of any other type is read as.
UNKNOWN_ORIENTATION = 9
# The size of an entry in a TIFF directory, and how much of it must be present.
_ENTRY_BYTES, _MIN_ENTRY_BYTES = 12, 10
# A PNG chunk's length, name and checksum.
_CHUNK_BYTES = 12
_EXIF_CHUNK, _TRANSPARENCY_CHUNK, _PROFILE_CHUNK = (
    tuple(each) for each in (b"eXIf", b"tRNS", b"iCCP")
)


class JpegMarkers(NamedTuple):
    """Scalar tensors.

    Attributes:
        orientation: The Exif orientation, int32, 1 to 8, or UNKNOWN_ORIENTATION.
        is_baseline: bool.
        is_ycc: Whether the components are Y, Cb, Cr or Y alone, bool.
        is_plain: Whether there are only segments, and nothing between them, up to the scan, bool.
        profile: Start and end of the ICC profile, int32 (2,); zeros if there is none, and equal if
            it is in pieces.
    """

    orientation: tf.Tensor
    is_baseline: tf.Tensor
    is_ycc: tf.Tensor
    is_plain: tf.Tensor
    profile: tf.Tensor


def read_jpeg_markers(encoded: tf.Tensor) -> JpegMarkers:
    """Read the markers of a JPEG, a scalar string, up to its first scan."""
    size = tf.strings.length(encoded)
    # Padding makes reads past the end return zeros, without a condition at every step.
    content = tf.pad(tf.io.decode_raw(encoded, tf.uint8), [[0, 40]])

    def read(position: tf.Tensor, length: int, step: int = 1) -> tf.Tensor:
        return tf.cast(content[position : position + length : step], tf.int32)

    def has_prefix(position: tf.Tensor, letters: tuple[int, ...]) -> tf.Tensor:
        return tf.reduce_all(tf.equal(read(position, len(letters)), letters))

    def is_segment(position: tf.Tensor, markers: Any) -> tf.Tensor:
        marker = content[position + 1]
        has_segment = (marker >= _FIRST_SEGMENT) & (marker != _MARKER)
        has_segment &= (marker < _NO_SEGMENTS[0]) | (marker > _NO_SEGMENTS[1])
        return (position < size) & tf.equal(content[position], _MARKER) & has_segment

    def read_segment(position: tf.Tensor, markers: Any) -> tuple[tf.Tensor, Any]:
        marker, high, low = tf.unstack(read(position + 1, 3), num=3)
        body = position + 4
        after = tf.minimum(position + 2 + tf.maximum(high * 256 + low, 2), size)
        orientation, is_baseline, is_ycc, _, profile = markers
        orientation = tf.cond(
            # The first segment with Exif counts.
            tf.equal(orientation, 0) & tf.equal(marker, _APP1) & has_prefix(body, _EXIF),
            lambda: read_exif_orientation(tf.cast(content[body + len(_EXIF) : after], tf.int32)),
            lambda: orientation,
        )
        is_frame = (marker >= _BASELINE) & (marker <= _LAST_FRAME)
        is_frame &= tf.reduce_all(tf.not_equal(marker, _OTHER_SEGMENTS))
        # A frame has bits per sample, height, width and components; then three bytes for each
        # component, its name first.
        is_8_bit_baseline = tf.equal(marker, _BASELINE) & tf.equal(content[body], 8)
        is_baseline = tf.where(is_frame, is_8_bit_baseline, is_baseline)
        is_rgb = tf.equal(content[body + 5], 3)
        is_rgb &= tf.reduce_all(tf.equal(read(body + 6, 9, step=3), _RGB))
        is_ycc &= ~(is_frame & is_rgb)
        is_adobe = tf.equal(marker, _APP14) & has_prefix(body, _ADOBE)
        is_ycc = tf.where(is_adobe, tf.equal(content[body + 11], 1), is_ycc)
        # Two bytes behind the name are the number of a piece, and how many there are.
        start = body + len(_ICC) + 2
        is_whole = tf.equal(content[start - 1], 1)
        is_profile = tf.equal(marker, _APP2) & has_prefix(body, _ICC)
        profile = tf.where(is_profile, [start, tf.where(is_whole, after, start)], profile)
        is_plain = tf.equal(content[after], _MARKER) & tf.equal(content[after + 1], _SCAN)
        return after, JpegMarkers(orientation, is_baseline, is_ycc, is_plain, profile)

    markers = JpegMarkers(
        orientation=tf.constant(0),
        is_baseline=tf.constant(False),
        is_ycc=tf.constant(True),
        is_plain=tf.constant(False),
        profile=tf.zeros(2, tf.int32),
    )
    markers = tf.while_loop(is_segment, read_segment, [tf.constant(2), markers])[1]
    return markers._replace(orientation=tf.maximum(markers.orientation, 1))


class PngChunks(NamedTuple):
    """Scalar tensors, but for the positions.

    Attributes:
        orientation: The Exif orientation, int32, 1 to 8, or UNKNOWN_ORIENTATION.
        has_transparency: Whether there is a chunk of transparent colors, bool.
        profile: Start and end of the chunk of the ICC profile, int32 (2,); zeros if there is none.
    """

    orientation: tf.Tensor
    has_transparency: tf.Tensor
    profile: tf.Tensor


def read_png_chunks(encoded: tf.Tensor) -> PngChunks:
    """Read the chunks of a PNG, a scalar string. Anything else has none."""
    content = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    size = tf.size(content)

    def length_at(position: tf.Tensor) -> tf.Tensor:
        bits = tf.bitwise.left_shift(content[position : position + 4], [24, 16, 8, 0])
        # A negative length would go backwards, forever.
        return tf.minimum(tf.bitwise.bitwise_and(tf.reduce_sum(bits), 0x7FFFFFFF), size)

    def is_inside(position: tf.Tensor, chunks: Any) -> tf.Tensor:
        return position + _CHUNK_BYTES <= size

    def read_chunk(position: tf.Tensor, chunks: Any) -> tuple[tf.Tensor, Any]:
        start, length = position + 8, length_at(position)
        orientation, has_transparency, profile = chunks

        def has_name(name: tuple[int, ...]) -> tf.Tensor:
            return tf.reduce_all(tf.equal(content[position + 4 : start], name))

        orientation = tf.cond(
            has_name(_EXIF_CHUNK),
            lambda: read_exif_orientation(content[start : start + length]),
            lambda: orientation,
        )

        has_transparency |= has_name(_TRANSPARENCY_CHUNK)
        profile = tf.where(has_name(_PROFILE_CHUNK), [start, start + length], profile)
        return start + length + 4, PngChunks(orientation, has_transparency, profile)

    is_png = tf.equal(tf.strings.substr(encoded, 0, 8), b"\x89PNG\r\n\x1a\n")
    start = tf.where(is_png, 8, size)
    chunks = PngChunks(tf.constant(1), tf.constant(False), tf.zeros(2, tf.int32))
    return tf.while_loop(is_inside, read_chunk, [start, chunks])[1]


def read_exif_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Return the orientation in Exif data, int32 (n,), a small TIFF; 1 if there is none.

    UNKNOWN_ORIENTATION if it is not one integer of 16 or 32 bits.
    """
    size = tf.cast(tf.size(tiff), tf.int64)
    tiff = tf.cast(tf.pad(tiff, [[0, 16]]), tf.int64)
    is_little = tf.reduce_all(tf.equal(tiff[:2], tf.constant(list(b"II"), tf.int64)))
    is_big = tf.reduce_all(tf.equal(tiff[:2], tf.constant(list(b"MM"), tf.int64)))

    def read_integers(positions: tf.Tensor, byte_count: int) -> tf.Tensor:
        """Return the integers of `byte_count` bytes at some positions; zeros past the end."""
        offsets = tf.range(byte_count, dtype=tf.int64)
        positions = tf.clip_by_value(positions[..., tf.newaxis] + offsets, 0, size + 15)
        powers = tf.where(is_little, offsets, byte_count - 1 - offsets)
        return tf.reduce_sum(tf.gather(tiff, positions) * 256**powers, axis=-1)

    directory = read_integers(tf.constant(4, tf.int64), 4)
    entries = directory + 2 + _ENTRY_BYTES * tf.range(read_integers(directory, 2))
    is_orientation = entries + _MIN_ENTRY_BYTES <= size
    is_orientation &= tf.equal(read_integers(entries, 2), _ORIENTATION_TAG)
    # The first entry counts; the one behind them, of zeros, is for data without any.
    entry = tf.concat([tf.boolean_mask(entries, is_orientation), [size]], 0)[0]
    kind, count = read_integers(entry + 2, 2), read_integers(entry + 4, 4)
    is_short = tf.equal(kind, _SHORT)
    value = tf.where(is_short, read_integers(entry + 8, 2), read_integers(entry + 8, 4))
    value = tf.where((value < 1) | (value > 8), tf.ones_like(value), value)
    is_usual = (is_short | tf.equal(kind, _LONG)) & tf.equal(count, 1)
    value = tf.where(is_usual | tf.equal(entry, size), value, UNKNOWN_ORIENTATION)
    return tf.where(is_little | is_big, tf.cast(value, tf.int32), 1)


def apply_orientation(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate and mirror pixels (height, width, channels) by an Exif orientation of 1 to 8."""

    def turned(number: int) -> tf.Tensor:
        image = pixels
        if number in (2, 3):
            image = tf.reverse(image, [1])
        if number in (3, 4):
            image = tf.reverse(image, [0])
        if number >= 5:
            image = _transpose(image)
        if number in (6, 7):
            image = tf.reverse(image, [1])
        if number in (7, 8):
            image = tf.reverse(image, [0])
        return image

    return tf.switch_case(orientation - 1, [partial(turned, number) for number in range(1, 9)])


def _transpose(image: tf.Tensor) -> tf.Tensor:
    """Swap rows and columns without tf.transpose, for which oneDNN logs an error on some CPUs."""
    height, width = tf.unstack(tf.shape(image)[:2])
    positions = tf.range(width)[:, tf.newaxis] + width * tf.range(height)
    return tf.gather(tf.reshape(image, [height * width, -1]), positions)
