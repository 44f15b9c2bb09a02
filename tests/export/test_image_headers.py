"""The graph's reading of JPEG markers and Exif, against the converter and Pillow."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from library.dataset.images import ImageOptions, decode_image
from library.dataset.jpeg import read_jpeg_header
from library.export.image_headers import (
    UNKNOWN_ORIENTATION,
    apply_orientation,
    read_jpeg_markers,
    read_png_chunks,
)
from tests.export.test_bytes_to_pixels import encode, smooth
from tests.helpers.jpeg_variants import WITH_STRAY_BYTES, adobe, insert, rotated
from tests.helpers.png_chunks import join_chunks

markers_graph = tf.function(
    read_jpeg_markers, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)
png_graph = tf.function(
    read_png_chunks, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
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
def test_apply_orientation_matches_pillow(orientation, order):
    content = jpeg(exif([(0x010F, 2, 7), (0x0112, 3, orientation)], order))
    assert markers_graph(content).orientation == orientation
    image = Image.open(io.BytesIO(content))
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(
        apply_orientation(np.asarray(image), markers_graph(content).orientation), expected
    )


@pytest.mark.parametrize(
    "content",
    [
        jpeg(),
        jpeg(exif([])),
        jpeg(exif([(0x0112, 3, 0)])),
        jpeg(exif([(0x0112, 3, 9)])),
        jpeg(exif([(0x0111, 3, 6)], count=40_000)),
        jpeg((0xE1, b"Exif\0\0")),
        jpeg((0xE1, b"Exif\0\0XX*\0\x08\0\0\0")),
        jpeg((0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")),
        jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0")),
        jpeg(exif([(0x0112, 3, 6)]))[:20],
    ],
)
def test_jpeg_orientation_is_1_without_valid_exif(content):
    assert markers_graph(content).orientation == 1


@pytest.mark.parametrize("kind", [1, 6, 8, 11])
def test_jpeg_orientation_of_an_odd_type_is_unknown(kind):
    assert markers_graph(jpeg(exif([(0x0112, kind, 6)]))).orientation == UNKNOWN_ORIENTATION


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (jpeg((0xE0, b"JFIF\0" + bytes(9)), (0xFE, b"x" * 60_000), exif([(0x0112, 3, 8)])), 8),
        (jpeg(exif([(0x0112, 3, 3), (0x0112, 3, 5)])), 3),
        (jpeg(exif([(0x0112, 3, 3)]), exif([(0x0112, 3, 5)])), 3),
        (jpeg(exif([]), exif([(0x0112, 3, 5)])), 1),
        (jpeg(exif([(0x0112, 4, 6)])), 6),
        (jpeg(exif([(0x0112, 3, 6)], count=40_000)), 6),
    ],
)
def test_jpeg_orientation_matches_the_converter(content, orientation):
    assert (
        markers_graph(content).orientation == orientation == read_jpeg_header(content).orientation
    )


@pytest.mark.slow
@given(st.binary(max_size=60), st.sampled_from([b"II*\0", b"MM\0*"]))
def test_jpeg_orientation_of_any_exif_matches_the_converter(body, head):
    content = jpeg((0xE1, b"Exif\0\0" + head + body))
    expected = read_jpeg_header(content).orientation
    assert markers_graph(content).orientation in (expected, UNKNOWN_ORIENTATION)


def png(*chunks):
    """Return a PNG with chunks (name, body) before its end, behind all that it shows."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    more = join_chunks(*chunks)
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
def test_png_orientation_matches_the_converter(content, orientation):
    assert png_graph(content).orientation == orientation
    _, size = decode_image(content, ImageOptions())
    assert size == ((7, 5) if orientation < 5 else (5, 7))


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0x80000000, 0xFFFFFFF4])
def test_png_orientation_is_1_after_an_impossible_length(length):
    content = bytearray(png((b"eXIf", tiff([(0x0112, 3, 6)]))))
    content[33:37] = struct.pack(">I", length)
    assert png_graph(bytes(content)).orientation == 1
    assert png_graph(jpeg(exif([(0x0112, 3, 6)]))).orientation == 1


PLAIN = encode(smooth(9, 9), "JPEG")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PLAIN, (1, True, True, True)),
        (encode(smooth(9, 9, 1), "JPEG"), (1, True, True, True)),
        (encode(smooth(9, 9), "JPEG", exif=rotated(6)), (6, True, True, True)),
        (encode(smooth(9, 9), "JPEG", progressive=True), (1, False, True, True)),
        (encode(smooth(9, 9), "JPEG", keep_rgb=True), (1, True, False, True)),
        (insert(PLAIN, adobe(0), b"\xff\xdb"), (1, True, False, True)),
        (insert(PLAIN, adobe(1), b"\xff\xdb"), (1, True, True, True)),
        *(
            (WITH_STRAY_BYTES[each], (1, True, True, False))
            for each in ("stray bytes", "stray FF 00")
        ),
    ],
)
def test_read_jpeg_markers_of_each_kind(content, expected):
    assert tuple(each.numpy() for each in markers_graph(content)[:4]) == expected


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(2, 200), st.integers(0, 255)), max_size=3))
def test_read_jpeg_markers_of_any_bytes_matches_the_converter(changes):
    content = bytearray(insert(PLAIN, adobe(1), b"\xff\xe0"))
    for at, value in changes:
        content[at] = value
    header = read_jpeg_header(bytes(content)) if content[2] == 0xFF else None
    found = markers_graph(bytes(content))
    if header and found.is_plain:
        assert not header.has_stray_bytes
        assert found.orientation in (header.orientation, UNKNOWN_ORIENTATION)
        assert np.array_equal(found[1:3], (header.is_baseline, header.is_ycc))
