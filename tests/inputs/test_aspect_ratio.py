"""Squeezed, cropped and padded images against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from library.inputs.aspect_ratio import CROP, PAD, SQUEEZED, Fit
from library.inputs.decoding import ImageFormat, decode

BILINEAR = Image.Resampling.BILINEAR
COLOR = (10, 200, 30)
FITS = [Fit(CROP), Fit(CROP, 0.875), Fit(PAD, background=COLOR)]


def encode(height, width):
    """Return a JPEG of waves, and its shape."""
    y, x = np.mgrid[:height, :width]
    waves = 128 + 100 * np.sin(3 + 7 * x / width) * np.cos(5 * y / height)
    pixels = np.stack([255 * y / height, 255 * x / width, waves], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=98, subsampling=0)
    return file.getvalue(), (height, width, 3)


def fitted(image, fit, size=(64, 64), channels=3, crop=None):
    content, shape = image
    form = ImageFormat(size[0], channels, size[1], fit)
    return decode(tf.constant(content), tf.constant(shape), form, crop).numpy().astype(int)


def fitted_by_pillow(image, fit, size):
    """Do the same with Pillow, whose crops begin and end between pixels."""
    opened, size = Image.open(io.BytesIO(image[0])), size[::-1]
    if fit.name == CROP:
        return ImageOps.fit(opened, size, BILINEAR, bleed=(1 - fit.crop_fraction) / 2)
    inner, padded = ImageOps.contain(opened, size, BILINEAR), Image.new("RGB", size, COLOR)
    padded.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return padded


@pytest.mark.parametrize("fit", FITS[::2], ids=str)
@pytest.mark.parametrize("edge", [30, 64, 100, 128, 300, 513])
def test_square_images_keep_their_pixels(fit, edge):
    image = encode(edge, edge)
    assert np.array_equal(fitted(image, fit), fitted(image, SQUEEZED))


@pytest.mark.parametrize("fit", FITS, ids=str)
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (72, 40)])
@pytest.mark.parametrize("shape", [(90, 120), (301, 203), (530, 700), (1000, 333)])
def test_fit_is_that_of_pillow(fit, size, shape):
    image = encode(*shape)
    expected = np.asarray(fitted_by_pillow(image, fit, size), int)
    difference = np.abs(fitted(image, fit, size) - expected)
    # Windows of whole pixels begin up to half a pixel elsewhere.
    assert difference.mean() < 2
    assert difference.max() < 25


def test_crop_of_the_networks_size_keeps_its_pixels():
    image = encode(256, 320)
    pixels = tf.io.decode_jpeg(image[0]).numpy()
    assert np.array_equal(fitted(image, Fit(CROP, 0.875), (224, 224)), pixels[16:240, 48:272])


@pytest.mark.parametrize(("channels", "color"), [(3, COLOR), (1, (124,))])
def test_pad_has_the_background_around_the_whole_image(channels, color):
    image = encode(32, 64)
    padded = fitted(image, FITS[2], channels=channels)
    assert (padded[:16] == color).all()
    assert (padded[48:] == color).all()
    assert np.array_equal(padded[16:48], tf.io.decode_jpeg(image[0], channels=channels))


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (1, 1)])
def test_extreme_shapes(shape):
    image = encode(*shape)
    cropped, padded = (fitted(image, fit, (9, 9)) for fit in (FITS[1], FITS[2]))
    middle = tf.io.decode_jpeg(image[0]).numpy()[(shape[0] - 1) // 2, (shape[1] - 1) // 2]
    assert (cropped == middle).all()
    # Pixels of the background; the rest is the image.
    assert (padded == COLOR).all(-1).sum() == (9 * 9 - 9 if max(shape) > 1 else 0)


def test_random_crop_is_squeezed_whatever_the_fit():
    image = encode(200, 300)
    squeezed, *others = (
        fitted(image, fit, crop=lambda shape: tf.constant([10, 20, 150, 200]))
        for fit in (SQUEEZED, *FITS)
    )
    assert all(np.array_equal(squeezed, each) for each in others)


@pytest.mark.parametrize(
    ("fit", "shape", "region"),
    [
        (SQUEEZED, (50, 100), (0, 0, 1, 1)),
        (Fit(CROP), (50, 100), (0, 0.25, 1, 0.75)),
        (Fit(CROP, 0.5), (100, 100), (0.25, 0.25, 0.75, 0.75)),
        (Fit(PAD), (50, 100), (-0.5, 0, 1.5, 1)),
    ],
    ids=str,
)
def test_region_is_what_the_input_covers(fit, shape, region):
    assert fit.region(shape, (32, 32)) == pytest.approx(region)


def test_smaller_format_has_the_same_fit():
    assert ImageFormat(20, 3, 30, FITS[1]).scaled(0.5) == ImageFormat(10, 3, 15, FITS[1])


def test_json_has_all_but_the_background():
    for fit in (SQUEEZED, *FITS):
        assert Fit.from_json(fit.to_json(), COLOR) == fit
    assert Fit.from_json({}, COLOR) == SQUEEZED
