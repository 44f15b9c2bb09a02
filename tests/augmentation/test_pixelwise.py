"""Compared with Pillow, whose operations the published policies were found with."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from library.augmentation import pixelwise

RANDOM = np.random.default_rng(0)
IMAGES = [
    RANDOM.integers(0, 256, (20, 16, 3), np.uint8),
    RANDOM.integers(90, 140, (20, 16, 3), np.uint8),
    np.full((6, 5, 3), 77, np.uint8),
]


@pytest.mark.parametrize("pixels", IMAGES, ids=["noise", "dull", "flat"])
@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (pixelwise.invert, ImageOps.invert),
        (lambda image: pixelwise.solarize(image, 100.0), lambda im: ImageOps.solarize(im, 156)),
        (lambda image: pixelwise.posterize(image, 3.0), lambda im: ImageOps.posterize(im, 5)),
        (pixelwise.equalize, ImageOps.equalize),
        (pixelwise.autocontrast, ImageOps.autocontrast),
        (
            lambda image: pixelwise.sharpen(image, 1.8),
            lambda im: ImageEnhance.Sharpness(im).enhance(1.8),
        ),
        (
            lambda image: pixelwise.sharpen(image, 0.2),
            lambda im: ImageEnhance.Sharpness(im).enhance(0.2),
        ),
    ],
    ids=["invert", "solarize", "posterize", "equalize", "autocontrast", "sharpen", "smooth"],
)
def test_as_in_pillow(ours, pillows, pixels):
    expected = np.asarray(pillows(Image.fromarray(pixels))).astype(int)
    given = ours(tf.constant(pixels))
    assert given.dtype == tf.uint8
    # Where Pillow cuts fractions off, we round.
    assert np.abs(given.numpy().astype(int) - expected).max() <= 2
