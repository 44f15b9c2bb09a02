"""What the graph reads of PNG, BMP and GIF, against what the converter reads."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.images import ImageOptions, decode_image
from library.export.decode_other import check_pixels, decode_other
from tests.export.test_bytes_to_pixels import smooth

pytestmark = pytest.mark.slow

OPTIONS = ImageOptions(max_edge=0, background=(10, 200, 60), max_pixels=10_000)
graph = tf.function(
    lambda encoded: decode_other(encoded, OPTIONS.background, OPTIONS.max_pixels),
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)
COLOR = Image.fromarray(smooth(20, 30))
CLEAR = Image.fromarray(smooth(20, 30, 4))


def save(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(bits, kind, row):
    """Return a PNG by hand: one row of samples, in bytes."""
    channels = {0: 1, 2: 3, 4: 2}[kind]
    header = struct.pack(">IIBBBBB", 8 * len(row) // bits // channels, 1, bits, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


ROW = bytes(range(0, 240, 10))


@pytest.mark.parametrize(
    "content",
    [
        save(COLOR, "PNG"),
        save(CLEAR, "PNG"),
        save(CLEAR.convert("LA"), "PNG"),
        save(COLOR.convert("P"), "PNG"),
        save(COLOR.convert("P"), "PNG", transparency=3),
        save(Image.new("RGB", (3, 3), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        *(png(bits, 0, ROW) for bits in (1, 2, 4, 8, 16)),
        png(16, 2, ROW),
        png(16, 4, ROW),
        save(COLOR, "GIF"),
        save(COLOR.convert("P"), "GIF", transparency=3),
        save(COLOR, "GIF", save_all=True, append_images=[CLEAR.convert("RGB")]),
        save(COLOR, "BMP"),
        save(CLEAR, "BMP"),
        save(COLOR.convert("L"), "BMP"),
        save(COLOR.convert("P"), "BMP"),
        save(COLOR.quantize(5), "BMP"),
    ],
)
def test_pixels_are_the_converters(content):
    expected, _ = decode_image(content, OPTIONS)
    if expected.ndim == 2:
        expected = np.dstack([expected] * 3)
    assert np.array_equal(graph(content), expected)


BMP = save(COLOR.convert("P"), "BMP")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "Input is empty"),
        (b"GIF", "pos 6 out of range"),
        (b"hello, this is no image", "Unknown image file format"),
        (save(COLOR, "TIFF"), "Unknown image file format"),
        (png(8, 0, ROW)[:50], "Invalid PNG"),
        (BMP[:30] + struct.pack("<I", 1) + BMP[34:], "of a kind that is not understood"),
        (BMP[:14] + struct.pack("<I", 12) + BMP[18:], "of a kind that is not understood"),
        (save(COLOR.convert("1"), "BMP"), "Number of channels inherent in the image"),
        (save(Image.new("L", (101, 100)), "PNG"), "too many pixels"),
        (save(Image.new("L", (101, 100)), "GIF"), "too many pixels"),
        (save(Image.new("L", (101, 100)), "BMP"), "too many pixels"),
    ],
)
def test_what_is_not_understood_is_an_error(content, text):
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        graph(content)


def test_an_image_has_pixels_but_not_too_many():
    check_pixels(3, 4, 12)
    for sides in ((0, 4), (3, 5), (60_000, 60_000)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="has too many pixels"):
            check_pixels(*sides, 12)
