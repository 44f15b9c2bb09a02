"""What the graph reads of a JPEG's markers, against the converter's own reading."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from library.dataset.jpeg import read_jpeg_header
from library.export.jpeg_markers import read_markers
from tests.export.test_bytes_to_pixels import encode, smooth, turned

pytestmark = pytest.mark.slow

graph = tf.function(read_markers, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
PLAIN = encode(smooth(9, 9), "JPEG")


def adobe(transform):
    """Return PLAIN with a marker of Adobe's, which says how its colors are coded."""
    body = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)
    return PLAIN[:2] + b"\xff\xee" + struct.pack(">H", len(body) + 2) + body + PLAIN[2:]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PLAIN, (1, True, True)),
        (encode(smooth(9, 9, 1), "JPEG"), (1, True, True)),
        (encode(smooth(9, 9), "JPEG", exif=turned(6)), (6, True, True)),
        (encode(smooth(9, 9), "JPEG", progressive=True), (1, False, True)),
        (encode(smooth(9, 9), "JPEG", keep_rgb=True), (1, True, False)),
        (adobe(0), (1, True, False)),
        (adobe(1), (1, True, True)),
        (encode(smooth(9, 9), "PNG"), (1, False, True)),
        (b"", (1, False, True)),
    ],
)
def test_it_tells_what_conversion_would_change(content, expected):
    assert tuple(each.numpy() for each in graph(content)) == expected


@given(st.lists(st.tuples(st.integers(2, 200), st.integers(0, 255)), max_size=3))
def test_any_bytes_mean_what_they_mean_to_the_converter(changes):
    content = bytearray(adobe(1))
    for at, value in changes:
        content[at] = value
    header = read_jpeg_header(bytes(content)) if content[2] == 0xFF else None
    if header:
        found = graph(bytes(content))
        assert found.orientation == header.orientation
        assert np.array_equal(found[1:], (header.is_baseline, header.is_ycc))
