"""Files that few programs write: read as other decoders read them, or rejected with true reasons.

Conversion, verification and inspection agree on each.
"""

import io
import re

import numpy as np
import PIL
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.dataset.images import (
    ImageOptions,
    UnusableImageError,
    check_decodable,
    convert_image,
    decode_image,
    find_conformant,
)
from library.dataset.tiff import find_flaw
from tests.helpers.jpeg_variants import PLAIN, UNUSUAL_SAMPLING, insert, segment, waves
from tests.helpers.tiff_variants import CMYK, FLOAT, GRAY, INVERTED_GRAY, SIGNED, encode_tiff

OPTIONS = ImageOptions()
PIXELS = waves(48, 32)
SHADES = PIXELS[..., :1]
WIDE = SHADES.astype(np.uint16) * 257


def read(content, options=OPTIONS):
    """Convert, check that verification and inspection agree, and return pixels."""
    jpeg, height, width = convert_image(content, options)
    check_decodable(jpeg, height, width)
    decode_image(content, ImageOptions(max_edge=64, color_space="gray"))
    image = Image.open(io.BytesIO(jpeg))
    assert image.size == (width, height)
    return np.asarray(image).astype(int)


def reject(content, options=OPTIONS):
    """Return the reason, after a check that inspection rejects the file, too."""
    with pytest.raises(UnusableImageError) as raised:
        convert_image(content, options)
    with pytest.raises(UnusableImageError):
        decode_image(content, ImageOptions(max_edge=64, color_space="gray"))
    return str(raised.value)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (PIXELS, {}),
        (PIXELS.astype(np.uint16) * 257, {}),
        (PIXELS, {"planes": 2}),
        (np.dstack([PIXELS, SHADES * 0 + 255]), {"extra": [1]}),
        (np.dstack([PIXELS, SHADES * 0 + 255]), {"extra": [2]}),
        (np.dstack([PIXELS, SHADES * 0 + 255]), {}),
    ],
)
def test_color_tiff_is_read(pixels, options, order):
    assert abs(read(encode_tiff(pixels, order=order, **options)) - PIXELS).mean() < 8


@pytest.mark.parametrize(
    ("pixels", "photometric", "options"),
    [
        (SHADES, GRAY, {}),
        (WIDE, GRAY, {}),
        (WIDE, GRAY, {"order": ">"}),
        (255 - SHADES, INVERTED_GRAY, {}),
        (65535 - WIDE, INVERTED_GRAY, {}),
        (WIDE >> 4, GRAY, {"bits": 12}),
        pytest.param(
            *(np.dstack([SHADES, SHADES * 0 + 255]), GRAY, {"extra": [1]}),
            marks=pytest.mark.skipif(PIL.__version__ < "13", reason="Pillow 12 refuses it"),
        ),
        (np.dstack([SHADES, SHADES * 0 + 255]), GRAY, {"extra": [2]}),
    ],
)
def test_gray_tiff_is_read(pixels, photometric, options):
    assert abs(read(encode_tiff(pixels, photometric, **options)) - SHADES).mean() < 3


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (np.dstack([PIXELS, SHADES]), {"extra": [0]}, "4 samples.* 1 of them"),
        (np.dstack([PIXELS, SHADES]), {"extra": [0], "planes": 2}, "4 samples.* 1 of them"),
        (np.dstack([PIXELS, SHADES, SHADES]), {"extra": [0, 0]}, "5 samples.* 2 of them"),
        (np.dstack([PIXELS, SHADES, SHADES]), {"extra": [2, 0]}, "5 samples.* 1 of them"),
        (np.dstack([PIXELS, PIXELS]), {}, "6 samples.* 3 of them"),
        (np.dstack([SHADES] * 2), {"photometric": GRAY, "extra": [0]}, "2 samples.* 1 of them"),
        (np.dstack([SHADES] * 4), {"photometric": GRAY}, "4 samples.* 3 of them"),
        (np.dstack([SHADES] * 13), {"photometric": GRAY}, "13 samples.* 12 of them"),
        (np.dstack([SHADES] * 5), {"photometric": CMYK, "extra": [0]}, "5 samples.* 1 of them"),
        (SHADES.astype(np.int8), {"photometric": GRAY, "sample_format": SIGNED}, "signed.* 8 bits"),
        (WIDE.astype(np.int16), {"photometric": GRAY, "sample_format": SIGNED}, "signed.* 16 bits"),
        (PIXELS.astype(np.int16), {"sample_format": SIGNED}, "signed.* 16 bits"),
        (SHADES.astype("f4"), {"photometric": GRAY, "sample_format": FLOAT}, "floating.* 32 bits"),
        (PIXELS.astype("f4"), {"sample_format": FLOAT}, "floating.* 32 bits"),
        (PIXELS.astype("f8"), {"sample_format": FLOAT}, "floating.* 64 bits"),
        (SHADES.astype(np.uint32), {"photometric": GRAY}, "32 bits"),
        (PIXELS.astype(np.uint32), {}, "32 bits"),
        (PIXELS.astype(np.uint16), {"planes": 2}, "separate planes"),
        (WIDE >> 4, {"photometric": GRAY, "bits": 12, "order": ">"}, "unsupported.* 12 bits"),
        (PIXELS, {"photometric": 32803}, "unsupported.* 32803"),
    ],
)
def test_tiff_is_rejected_with_reason(pixels, options, reason):
    assert re.search(reason, reject(encode_tiff(pixels, **options)))


def test_big_endian_big_tiff_is_rejected_with_reason():
    assert "BigTIFF" in reject(b"MM\0\x2b\0\x08" + bytes(100))


def test_damaged_tags_have_no_flaw_of_their_own():
    content = encode_tiff(PIXELS)
    for length in range(4, len(content), 97):
        assert find_flaw(content[:length]) is None


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def test_large_text_in_png_is_no_reason_to_reject_it():
    text = PngInfo()
    text.add_text("profile", "x" * (2 << 20), zip=True)
    assert abs(read(saved(Image.fromarray(PIXELS), format="PNG", pnginfo=text)) - PIXELS).mean() < 8


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize(
    "encode",
    [
        lambda wide: saved(Image.fromarray(wide[..., 0]), format="PNG"),
        lambda wide: saved(Image.fromarray(wide[..., 0]), format="TIFF"),
        lambda wide: encode_tiff(np.dstack([wide] * 3)),
        lambda wide: encode_tiff(np.dstack([wide] * 3 + [wide * 0 + 65535]), extra=[2]),
    ],
)
def test_unused_bits_of_16_are_noted(bits, encode):
    notes = []
    convert_image(encode(WIDE >> (16 - bits)), OPTIONS, notes)
    decode_image(encode(WIDE >> (16 - bits)), OPTIONS, notes)
    assert notes == [f"only {bits} of 16 bits per sample"] * 2
    for unremarkable in (WIDE, WIDE >> 1, WIDE * 0):
        notes = []
        convert_image(encode(unremarkable), OPTIONS, notes)
        assert not notes or not unremarkable.any()


def test_transparent_gray_of_16_bits_shows_background():
    image = Image.fromarray(np.full((8, 8), 300, np.uint16))
    options = ImageOptions(background=(200, 100, 50))
    pixels = read(saved(image, format="PNG", transparency=300), options)
    assert abs(pixels[4, 4] - (200, 100, 50)).max() < 4
    assert read(saved(image, format="PNG", transparency=301), options)[4, 4].max() < 4


@pytest.mark.parametrize("name", UNUSUAL_SAMPLING)
@pytest.mark.parametrize("max_edge", [0, 20])
def test_jpeg_with_unusual_sampling_is_read(name, max_edge):
    content = UNUSUAL_SAMPLING[name]
    expected = Image.open(io.BytesIO(content))
    found = read(content, ImageOptions(max_edge=max_edge))
    if max_edge:
        expected = expected.resize((20, 13), Image.Resampling.LANCZOS)
    else:
        assert convert_image(content, OPTIONS).content == content
    assert abs(found - np.asarray(expected)).mean() < 4


def test_jpeg_with_incomplete_profile_is_read():
    content = insert(PLAIN, segment(0xE2, b"ICC_PROFILE\0\1\2half"))
    assert abs(read(content) - np.asarray(Image.open(io.BytesIO(PLAIN)))).max() == 0
    assert (
        abs(read(content, ImageOptions(max_edge=24)) - read(PLAIN, ImageOptions(max_edge=24))).max()
        < 4
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12 bits"),
        (PLAIN.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x10"), "16 bits"),
        (b"\xff\xd8\xff\xf7" + bytes(50), "JPEG-LS"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged PNG"),
    ],
)
def test_file_is_rejected_with_true_reason(content, reason):
    assert reason in reject(content)


SCAN = PLAIN.index(b"\xff\xda") + 14
MIDDLE = (SCAN + len(PLAIN)) // 2
# Their headers are whole, but their data doesn't decode.
DAMAGED = {
    "senseless table": PLAIN.replace(b"\xff\xc4\0\x1f\0\0", b"\xff\xc4\0\x1f\0\xff"),
    "missing table": PLAIN[: SCAN - 8] + b"\x22" + PLAIN[SCAN - 7 :],
    "no data": PLAIN[:SCAN] + b"\xff\xd9",
    "half the data": PLAIN[:MIDDLE] + b"\xff\xd9",
    "ones in the data": PLAIN[:MIDDLE] + b"\xff\0" * 60 + PLAIN[MIDDLE + 120 :],
    "another frame": PLAIN[:MIDDLE] + segment(0xC3, bytes(20)) + PLAIN[MIDDLE:],
    "unknown marker": PLAIN[:MIDDLE] + segment(0x9F, bytes(20)) + PLAIN[MIDDLE:],
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("max_edge", [0, 24])
def test_jpeg_whose_data_is_damaged_is_rejected(name, max_edge):
    assert find_conformant(DAMAGED[name], OPTIONS)
    assert "damaged JPEG" in reject(DAMAGED[name], ImageOptions(max_edge))
