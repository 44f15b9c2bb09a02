"""The graph's reading of Exif against Pillow's, and against the converter's own."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from library.dataset.images import ImageOptions, decode_image
from library.dataset.jpeg import read_jpeg_header
from library.export.jpeg_markers import read_markers
from library.export.orientation import read_png_orientation, turn

graph = tf.function(
    lambda encoded: read_markers(encoded).orientation,
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def tiff(entries, order="<", count=None):
    """Return Exif's TIFF with (tag, kind, value) entries."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    body = struct.pack(f"{order}H", len(entries) if count is None else count)
    for tag, kind, value in entries:
        body += struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0)
    return head + body + bytes(4)


def jpeg(*segments):
    """Return a JPEG with segments (marker, body) before all that it has."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", quality=100, subsampling=0)
    content = file.getvalue()
    more = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments
    )
    return content[:2] + more + content[2:]


def exif(entries, order="<", count=None):
    return 0xE1, b"Exif\0\0" + tiff(entries, order, count)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_in_both_byte_orders_are_pillows(orientation, order):
    content = jpeg(exif([(0x010F, 2, 7), (0x0112, 3, orientation)], order))
    assert graph(content) == orientation
    image = Image.open(io.BytesIO(content))
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(turn(np.asarray(image), graph(content)), expected)


@pytest.mark.parametrize(
    "content",
    [
        jpeg(),
        jpeg(exif([])),
        jpeg(exif([(0x0112, 4, 6)])),
        jpeg(exif([(0x0112, 3, 0)])),
        jpeg(exif([(0x0112, 3, 9)])),
        jpeg(exif([(0x0111, 3, 6)], count=40_000)),
        jpeg((0xE1, b"Exif\0\0")),
        jpeg((0xE1, b"Exif\0\0XX*\0\x08\0\0\0")),
        jpeg((0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
        jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0")),
        jpeg(exif([(0x0112, 3, 6)]))[:20],
        b"\x89PNG\r\n\x1a\n",
        b"",
    ],
)
def test_absent_or_broken_exif_turns_nothing(content):
    assert graph(content) == 1


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (jpeg((0xE0, b"JFIF\0" + bytes(9)), (0xFE, b"x" * 60_000), exif([(0x0112, 3, 8)])), 8),
        (jpeg(exif([(0x0112, 3, 3), (0x0112, 3, 5)])), 3),
        (jpeg(exif([(0x0112, 3, 3)]), exif([(0x0112, 3, 5)])), 5),
        (jpeg(exif([(0x0112, 3, 6)], count=40_000)), 6),
        (b"\xff\xd8\xff\xff\xff" + jpeg(exif([(0x0112, 3, 7)]))[3:], 7),
    ],
)
def test_it_is_found_wherever_the_converter_finds_it(content, orientation):
    assert graph(content) == orientation == read_jpeg_header(content).orientation


@pytest.mark.slow
@given(st.binary(max_size=60), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_any_bytes_mean_what_they_mean_to_the_converter(body, head):
    content = jpeg((0xE1, b"Exif\0\0" + head + body))
    assert graph(content) == read_jpeg_header(content).orientation


png_graph = tf.function(
    read_png_orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def png(*chunks):
    """Return a PNG with chunks (name, body) before its end, behind all that it shows."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    more = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return file.getvalue()[:-12] + more + file.getvalue()[-12:]


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (png(), 1),
        (png((b"eXIf", tiff([(0x0112, 3, 6)]))), 6),
        (png((b"eXIf", tiff([(0x010F, 2, 7), (0x0112, 3, 8)], ">"))), 8),
        (png((b"tEXt", b"eXIf is meant\0" * 9), (b"eXIf", tiff([(0x0112, 3, 3)]))), 3),
        (png((b"eXIf", b"")), 1),
        (png((b"eXIf", b"II*\0")), 1),
    ],
)
def test_a_pngs_orientation_is_the_converters(content, orientation):
    assert png_graph(content) == orientation
    _, size = decode_image(content, ImageOptions())
    assert size == ((7, 5) if orientation < 5 else (5, 7))


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x80000000, 0xFFFFFFF4])
def test_a_length_that_can_not_be_ends_the_search(length):
    content = bytearray(png((b"eXIf", tiff([(0x0112, 3, 6)]))))
    content[33:37] = struct.pack(">I", length)
    assert png_graph(bytes(content)) == 1
    assert png_graph(jpeg(exif([(0x0112, 3, 6)]))) == 1
