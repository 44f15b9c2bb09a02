"""Read and apply the Exif orientation and JPEG markers with TensorFlow operations alone.

TensorFlow has no operation for either. This is library/dataset/jpeg.py for a graph that runs
without Python.
"""

from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

_FILL, _SCAN, _END, _APP1, _APP2, _APP14 = 0xFF, 0xDA, 0xD9, 0xE1, 0xE2, 0xEE
# Markers without a segment: up to 01, and the restart markers.
_STANDS_ALONE, _RESTART, _LAST_RESTART = 0x01, 0xD0, 0xD7
# The first frame marker is the baseline one; C4, C8 and CC among them mark other segments.
_BASELINE, _LAST_FRAME, _OTHER_SEGMENTS = 0xC0, 0xCF, (0xC4, 0xC8, 0xCC)
_EXIF, _ADOBE, _RGB = tuple(b"Exif\0\0"), tuple(b"Adobe"), tuple(b"RGB")
_XMP, _ICC = tuple(b"http://ns.adobe.com/xap/1.0/\0"), tuple(b"ICC_PROFILE\0")

_ORIENTATION_TAG = 0x0112
# Types of numbers in a TIFF directory, by their size in bytes; signed ones are no different here.
_NUMBER_TYPES = {1: (6,), 2: (3, 8), 4: (4, 9, 13)}
# Fractions, floating-point numbers and integers of 64 bits, which Pillow takes, too.
_OTHER_NUMBER_TYPES = (5, 10, 11, 12, 16)
# What an orientation of such a type is read as.
UNKNOWN_ORIENTATION = 9
# The size of an entry in a TIFF directory, and how much of it must be present.
_ENTRY_BYTES, _MIN_ENTRY_BYTES = 12, 10
# A PNG chunk's length, name and checksum.
_CHUNK_BYTES = 12
_EXIF_CHUNK, _TRANSPARENCY_CHUNK, _PROFILE_CHUNK = (
    tuple(each) for each in (b"eXIf", b"tRNS", b"iCCP")
)
# How a chunk of text begins that holds metadata.
_PNG_XMP, _RAW_EXIF = tuple(b"XML:com.adobe.xmp\0"), tuple(b"Raw profile type exif\0")


class JpegMarkers(NamedTuple):
    """Scalar tensors.

    Attributes:
        orientation: The Exif orientation, int32, 1 to 8, or UNKNOWN_ORIENTATION.
        is_baseline: bool.
        is_ycc: Whether the components are Y, Cb, Cr or Y alone, bool.
        has_stray_bytes: Whether bytes stand between the segments, bool.
        profile: Start and end of the ICC profile, int32 (2,); zeros if there is none, and equal if
            it is in pieces.
        xmp: Start and end of the XMP data, int32 (2,); zeros if there is none.
    """

    orientation: tf.Tensor
    is_baseline: tf.Tensor
    is_ycc: tf.Tensor
    has_stray_bytes: tf.Tensor
    profile: tf.Tensor
    xmp: tf.Tensor


def read_jpeg_markers(encoded: tf.Tensor) -> JpegMarkers:
    """Read the markers of a JPEG, a scalar string, up to its first scan.

    Anything else has orientation 1 and is not baseline.
    """
    content = tf.io.decode_raw(encoded, tf.uint8)
    size = tf.size(content)
    # A search for the next marker skips stray bytes, like libjpeg.
    first, second = content[:-1], content[1:]
    is_marker = tf.equal(first, _FILL) & (second > _STANDS_ALONE) & (second != _FILL)
    is_marker &= (second < _RESTART) | (second > _LAST_RESTART)
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")
    found = tf.cast(tf.where(is_marker & is_jpeg)[:, 0], tf.int32)
    # What may stand before a marker without a decoder's warning.
    follows_fill = tf.concat([[False], tf.equal(first, _FILL)], 0)[:size]
    is_alone = (content >= _RESTART) & (content <= _LAST_RESTART) | tf.equal(content, _STANDS_ALONE)
    is_filler = tf.equal(content, _FILL) | (follows_fill & is_alone)
    # Padding makes reads past the end return zeros, without a condition at every step.
    content = tf.pad(content, [[0, 40]])

    def find_marker(position: tf.Tensor) -> tf.Tensor:
        return tf.concat([found, [size]], 0)[tf.searchsorted(found, [position])[0]]

    def has_stray(start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        return ~tf.reduce_all(is_filler[start:end])

    def read(position: tf.Tensor, length: int, step: int = 1) -> tf.Tensor:
        return tf.cast(content[position : position + length : step], tf.int32)

    def has_prefix(position: tf.Tensor, letters: tuple[int, ...]) -> tf.Tensor:
        return tf.reduce_all(tf.equal(read(position, len(letters)), letters))

    def is_inside(position: tf.Tensor, markers: Any) -> tf.Tensor:
        marker = content[position + 1]
        return (position + 4 <= size) & (marker != _SCAN) & (marker != _END)

    def read_segment(position: tf.Tensor, markers: Any) -> tuple[tf.Tensor, Any]:
        marker, high, low = tf.unstack(read(position + 1, 3), num=3)
        body = position + 4
        after = tf.minimum(position + 2 + tf.maximum(high * 256 + low, 2), size)
        orientation, is_baseline, is_ycc, has_stray_bytes, profile, xmp = markers
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
        following = find_marker(after)
        has_stray_bytes |= has_stray(after, following)
        # Two bytes behind the name are the number of a piece, and how many there are.
        start = body + len(_ICC) + 2
        is_whole = tf.equal(content[start - 1], 1)
        is_profile = tf.equal(marker, _APP2) & has_prefix(body, _ICC)
        profile = tf.where(is_profile, [start, tf.where(is_whole, after, start)], profile)
        xmp = tf.where(tf.equal(marker, _APP1) & has_prefix(body, _XMP), [body, after], xmp)
        return following, JpegMarkers(
            orientation, is_baseline, is_ycc, has_stray_bytes, profile, xmp
        )

    start = find_marker(tf.constant(2))
    markers = JpegMarkers(
        orientation=tf.constant(0),
        is_baseline=tf.constant(False),
        is_ycc=tf.constant(True),
        has_stray_bytes=is_jpeg & has_stray(2, start),
        profile=tf.zeros(2, tf.int32),
        xmp=tf.zeros(2, tf.int32),
    )
    markers = tf.while_loop(is_inside, read_segment, [start, markers])[1]
    return markers._replace(orientation=tf.maximum(markers.orientation, 1))


class PngChunks(NamedTuple):
    """Scalar tensors, but for the positions.

    Attributes:
        orientation: The Exif orientation, int32, 1 to 8, or UNKNOWN_ORIENTATION.
        has_transparency: Whether there is a chunk of transparent colors, bool.
        has_raw_exif: Whether Exif is in a text, as ImageMagick writes it, bool.
        profile: Start and end of the chunk of the ICC profile, int32 (2,); zeros if there is none.
        xmp: The same of XMP.
    """

    orientation: tf.Tensor
    has_transparency: tf.Tensor
    has_raw_exif: tf.Tensor
    profile: tf.Tensor
    xmp: tf.Tensor


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
        orientation, has_transparency, has_raw_exif, profile, xmp = chunks

        def has_name(name: tuple[int, ...]) -> tf.Tensor:
            return tf.reduce_all(tf.equal(content[position + 4 : start], name))

        orientation = tf.cond(
            has_name(_EXIF_CHUNK),
            lambda: read_exif_orientation(content[start : start + length]),
            lambda: orientation,
        )

        def has_prefix(letters: tuple[int, ...]) -> tf.Tensor:
            found = content[start : start + len(letters)]
            # Near the end fewer are left, whose shape would not fit.
            return tf.equal(tf.size(found), len(letters)) & tf.reduce_all(
                tf.equal(tf.pad(found, [[0, len(letters) - tf.size(found)]]), letters)
            )

        has_transparency |= has_name(_TRANSPARENCY_CHUNK)
        has_raw_exif |= has_prefix(_RAW_EXIF)
        span = [start, start + length]
        profile = tf.where(has_name(_PROFILE_CHUNK), span, profile)
        xmp = tf.where(has_prefix(_PNG_XMP), span, xmp)
        return start + length + 4, PngChunks(
            orientation, has_transparency, has_raw_exif, profile, xmp
        )

    is_png = tf.equal(tf.strings.substr(encoded, 0, 8), b"\x89PNG\r\n\x1a\n")
    start = tf.where(is_png, 8, size)
    no, nowhere = tf.constant(False), tf.zeros(2, tf.int32)
    chunks = PngChunks(tf.constant(1), no, no, nowhere, nowhere)
    return tf.while_loop(is_inside, read_chunk, [start, chunks])[1]


def read_exif_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Return the orientation in Exif data, int32 (n,), a small TIFF; 1 if there is none.

    UNKNOWN_ORIENTATION if it is a number of an odd type.
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
    is_orientation = (
        (entries + _MIN_ENTRY_BYTES <= size)
        & tf.equal(read_integers(entries, 2), _ORIENTATION_TAG)
        & (read_integers(entries + 4, 4) >= 1)
    )
    entries = tf.boolean_mask(entries, is_orientation)
    types, counts = read_integers(entries + 2, 2), read_integers(entries + 4, 4)
    values = tf.zeros_like(types)
    for byte_count, numbers in _NUMBER_TYPES.items():
        is_number = tf.reduce_any(tf.equal(types[:, tf.newaxis], numbers), -1)
        # Of several numbers the first counts; more than four bytes are elsewhere.
        is_inside = byte_count * counts <= 4
        places = tf.where(is_inside, entries + 8, read_integers(entries + 8, 4))
        values = tf.where(is_number, read_integers(places, byte_count), values)
    is_other = tf.reduce_any(tf.equal(types[:, tf.newaxis], _OTHER_NUMBER_TYPES), -1)
    values = tf.where(values <= 8, values, tf.ones_like(values))
    values = tf.where(is_other, UNKNOWN_ORIENTATION * tf.ones_like(values), values)
    # The first entry counts; the 1 behind them is for data without any.
    value = tf.cast(tf.concat([values, [1]], 0)[0], tf.int32)
    return tf.where((is_little | is_big) & (value >= 1), value, 1)


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
