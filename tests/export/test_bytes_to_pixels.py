"""The graph's decoding and resizing, against the converter and evaluation: the same pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.images import ImageOptions, decode_image
from library.dataset.pixels import fitted_size, shrink
from library.export import resize
from library.export.bytes_to_pixels import prepare_bytes
from library.export.decode_png import check_pixel_count, decode_png
from library.export.image_headers import read_png_chunks
from library.inputs.aspect_ratio import CROP, PAD, Fit
from library.inputs.decoding import ImageFormat
from library.prediction.preprocess import ImagePreprocessor
from tests.helpers.jpeg_variants import CONFORMANT, FILLED, OTHERS, WITH_TRAILING_BYTES, rotated
from tests.helpers.png_chunks import make_png

pytestmark = pytest.mark.slow

FORMAT = ImageFormat(16, 3)
HALF_COLOR = ImageOptions(160, 95, "rgb", (10, 200, 60), 1_000_000, "420")


def smooth(height, width, channels=3, seed=0):
    """Return a random image with the smoothness of photographs."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 8, channels), np.uint8)
    planes = [Image.fromarray(small[..., each]) for each in range(channels)]
    return np.dstack([np.asarray(each.resize((width, height), 3)) for each in planes])


def encode_image(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode(pixels, kind, **options):
    return encode_image(Image.fromarray(np.squeeze(pixels)), kind, **options)


def graph(image_format, options):
    return tf.function(
        lambda encoded: prepare_bytes(encoded, image_format, options),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )


AS_STORED = {
    "jpeg": encode(smooth(40, 60), "JPEG"),
    "network's size": encode(smooth(16, 16), "JPEG"),
    "gray jpeg": encode(smooth(40, 60, 1), "JPEG"),
    "largest": encode(smooth(120, 160), "JPEG"),
    **{f"rotated {each}": encode(smooth(40, 60), "JPEG", exif=rotated(each)) for each in (3, 6)},
    "png": encode(smooth(50, 40), "PNG"),
    **{f"png turned {each}": encode(smooth(40, 60), "PNG", exif=rotated(each)) for each in (3, 8)},
    "large png": encode(smooth(150, 140), "PNG"),
    "gray png": encode(smooth(50, 40, 1), "PNG"),
    "alpha": encode(smooth(50, 40, 4), "PNG"),
    "16 bits": encode(smooth(50, 40, 1).astype(np.uint16) * 201, "PNG"),
    "one pixel": encode(smooth(1, 1), "PNG"),
    "progressive": encode(smooth(40, 60), "JPEG", progressive=True),
    "red, green, blue": encode(smooth(40, 60), "JPEG", keep_rgb=True),
    "restarts": encode(smooth(40, 60), "JPEG", restart_marker_rows=1),
    **{name: each for name, each in CONFORMANT.items() if name not in FILLED},
    **WITH_TRAILING_BYTES,
    **OTHERS,
}
TO_SHRINK = {
    "jpeg": encode(smooth(500, 375), "JPEG"),
    "rotated": encode(smooth(375, 500), "JPEG", exif=rotated(8)),
    "four times": encode(smooth(900, 700), "JPEG"),
    "odd, twice": encode(smooth(501, 375), "JPEG"),
    "odd, four times": encode(smooth(801, 1003), "JPEG"),
    "odd, eight times": encode(smooth(603, 1601), "JPEG"),
    "a little": encode(smooth(170, 165), "PNG"),
    "long": encode(smooth(30, 640, 4), "PNG"),
    "gray": encode(smooth(400, 420, 1), "JPEG"),
}


@pytest.fixture(scope="module", params=["rgb", "gray"])
def both(request):
    """The graph and the converter, for color networks that crop and gray ones that pad."""
    options = ImageOptions(160, 95, request.param, (10, 200, 60), 1_000_000)
    image_format = {
        "rgb": ImageFormat(16, 3, fit=Fit(CROP, 0.8)),
        "gray": ImageFormat(16, 1, fit=Fit(PAD, background=options.background)),
    }[request.param]
    return graph(image_format, options), ImagePreprocessor(image_format, options)


@pytest.mark.parametrize("name", AS_STORED)
def test_prepare_bytes_matches_evaluation(both, name):
    found, expected = both[0](AS_STORED[name]).numpy(), both[1].preprocess(AS_STORED[name])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", TO_SHRINK)
def test_prepare_bytes_differs_in_few_pixels_if_shrunk(both, name):
    found, expected = both[0](TO_SHRINK[name]).numpy(), both[1].preprocess(TO_SHRINK[name])
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


def test_prepare_bytes_stores_color_as_conversion_does_and_refuses_bad_images():
    prepare = graph(FORMAT, HALF_COLOR)
    content = encode(smooth(100, 90), "PNG")
    expected = ImagePreprocessor(FORMAT, HALF_COLOR).preprocess(content)
    assert np.array_equal(prepare(content).numpy(), expected)
    for content in (b"", b"hello", AS_STORED["jpeg"][:200], AS_STORED["png"][:60]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            prepare(content)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="has too many pixels"):
            prepare(encode(np.zeros((1001, 1000), np.uint8), kind))


DECODE_OPTIONS = ImageOptions(max_edge=0, background=(10, 200, 60), max_pixels=10_000)
decode_graph = tf.function(
    lambda encoded: decode_png(
        encoded,
        read_png_chunks(encoded).has_transparency,
        DECODE_OPTIONS.background,
        DECODE_OPTIONS.max_pixels,
    ),
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)
COLOR = Image.fromarray(smooth(20, 30))
CLEAR = Image.fromarray(smooth(20, 30, 4))


def png(bits, kind, row):
    """Return a PNG by hand: one row of samples, in bytes."""
    channels = {0: 1, 2: 3, 4: 2}[kind]
    header = struct.pack(">IIBBBBB", 8 * len(row) // bits // channels, 1, bits, kind, 0, 0, 0)
    return make_png((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))


ROW = bytes(range(0, 240, 10))


@pytest.mark.parametrize(
    "content",
    [
        encode_image(COLOR, "PNG"),
        encode_image(CLEAR, "PNG"),
        encode_image(CLEAR.convert("LA"), "PNG"),
        encode_image(COLOR.convert("P"), "PNG"),
        encode_image(COLOR.convert("P"), "PNG", transparency=3),
        encode_image(Image.new("RGB", (3, 3), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        *(png(bits, 0, ROW) for bits in (1, 2, 4, 8, 16)),
        png(16, 2, ROW),
        png(16, 4, ROW),
    ],
)
def test_decode_png_matches_the_converter(content):
    expected, _ = decode_image(content, DECODE_OPTIONS)
    if expected.ndim == 2:
        expected = np.dstack([expected] * 3)
    assert np.array_equal(decode_graph(content), expected)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "does not take"),
        (b"GIF", "does not take"),
        (b"hello, this is no image", "does not take"),
        *((encode_image(COLOR, kind), "does not take") for kind in ("TIFF", "GIF", "BMP", "WEBP")),
        (png(8, 0, ROW)[:50], "Invalid PNG"),
        (encode_image(Image.new("L", (101, 100)), "PNG"), "too many pixels"),
    ],
)
def test_decode_png_refuses_other_files(content, text):
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        decode_graph(content)


def test_check_pixel_count():
    check_pixel_count(3, 4, 12)
    for sides in ((0, 4), (3, 5), (60_000, 60_000)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="has too many pixels"):
            check_pixel_count(*sides, 12)


shrink_graph = tf.function(
    resize.shrink,
    input_signature=[tf.TensorSpec([None, None, None], tf.uint8), tf.TensorSpec([2], tf.int32)],
    autograph=False,
)


def noisy(height, width):
    """Return an image in which every pixel matters."""
    noise = np.random.default_rng(height).integers(-30, 31, (height, width, 3))
    return (smooth(height, width) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "max_edge"),
    [
        *[(150, 200, 160), (161, 120, 160), (300, 90, 160), (1, 200, 100), (200, 3, 100)],
        # So large that whole pixels are averaged first: four of them, nine, or parts of others.
        *[(400, 300, 160), (480, 360, 96), (301, 403, 100), (20, 900, 64)],
    ],
)
def test_shrink_matches_the_converter(height, width, max_edge):
    image = noisy(height, width)
    size = fitted_size(width, height, max_edge)
    found = shrink_graph(image, size[::-1]).numpy()
    difference = np.abs(found.astype(int) - shrink(image, size))
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.995


def test_shrink_returns_an_image_of_that_size_unchanged():
    image = noisy(30, 40)
    assert np.array_equal(shrink_graph(image, (30, 40)), image)
