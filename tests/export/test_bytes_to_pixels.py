"""The graph's preparation against the converter's and evaluation's: the same pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.images import ImageOptions
from library.export.bytes_to_pixels import prepare_bytes
from library.inputs.decoding import ImageFormat
from library.prediction.preprocess import Pictures

pytestmark = pytest.mark.slow

FORMAT = ImageFormat(16, 3)
OPTIONS = ImageOptions(max_edge=160, background=(10, 200, 60), max_pixels=1_000_000)


def smooth(height, width, channels=3, seed=0):
    """Return a random image with the smoothness of photographs."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 8, channels), np.uint8)
    planes = [Image.fromarray(small[..., each]) for each in range(channels)]
    return np.dstack([np.asarray(each.resize((width, height), 3)) for each in planes])


def encode(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(file, kind, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


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
    **{f"turned {each}": encode(smooth(40, 60), "JPEG", exif=turned(each)) for each in (3, 6)},
    "png": encode(smooth(50, 40), "PNG"),
    **{f"png turned {each}": encode(smooth(40, 60), "PNG", exif=turned(each)) for each in (3, 8)},
    "large png": encode(smooth(150, 140), "PNG"),
    "gray png": encode(smooth(50, 40, 1), "PNG"),
    "alpha": encode(smooth(50, 40, 4), "PNG"),
    "16 bits": encode(smooth(50, 40, 1).astype(np.uint16) * 201, "PNG"),
    "palette": encode(np.asarray(smooth(50, 40, 1)), "GIF"),
    "bmp": encode(smooth(50, 40), "BMP"),
    "large bmp": encode(smooth(90, 160), "BMP"),
    "large gif": encode(smooth(130, 150, 1), "GIF"),
    "one pixel": encode(smooth(1, 1), "PNG"),
    "progressive": encode(smooth(40, 60), "JPEG", progressive=True),
    "red, green, blue": encode(smooth(40, 60), "JPEG", keep_rgb=True),
    "restarts": encode(smooth(40, 60), "JPEG", restart_marker_rows=1),
    "more behind": encode(smooth(40, 60), "JPEG") + b"more",
}
TO_SHRINK = {
    "jpeg": encode(smooth(500, 375), "JPEG"),
    "turned": encode(smooth(375, 500), "JPEG", exif=turned(8)),
    "four times": encode(smooth(900, 700), "JPEG"),
    "a little": encode(smooth(170, 165), "PNG"),
    "long": encode(smooth(30, 640, 4), "PNG"),
    "gray": encode(smooth(400, 420, 1), "JPEG"),
}


@pytest.fixture(scope="module", params=["rgb", "gray"])
def both(request):
    """The graph and the converter, for color and for gray networks."""
    options = ImageOptions(160, 95, request.param, (10, 200, 60), 1_000_000)
    image_format = ImageFormat(16, 3 if request.param == "rgb" else 1)
    return graph(image_format, options), Pictures(image_format, options)


@pytest.mark.parametrize("name", AS_STORED)
def test_what_need_not_be_shrunk_has_evaluations_very_pixels(both, name):
    found, expected = both[0](AS_STORED[name]).numpy(), both[1].pixels(AS_STORED[name])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", TO_SHRINK)
def test_of_what_is_shrunk_few_pixels_differ_and_by_one(both, name):
    found, expected = both[0](TO_SHRINK[name]).numpy(), both[1].pixels(TO_SHRINK[name])
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


def test_no_image_and_too_large_a_one_are_errors():
    prepare = graph(FORMAT, OPTIONS)
    for content in (b"", b"hello", AS_STORED["jpeg"][:200], AS_STORED["png"][:60]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            prepare(content)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="has too many pixels"):
            prepare(encode(np.zeros((1001, 1000), np.uint8), kind))
