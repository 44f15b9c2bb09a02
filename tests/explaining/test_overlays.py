import io

import numpy as np
import pytest
from PIL import Image

from library.explaining.overlays import (
    color_heatmap,
    encode_image,
    enlarge,
    overlay_heatmap,
    to_color,
)

CORNER = np.zeros((4, 4), np.float32)
CORNER[0, 0] = 1


def test_heat_is_opaque_where_it_is_and_clear_where_it_is_not():
    painted = color_heatmap(CORNER, (64, 32))
    assert painted.shape == (32, 64, 4)
    assert painted[0, 0].tolist() == [252, 253, 191, 153]
    assert (painted[16:, 32:, 3] == 0).all()
    assert (color_heatmap(np.zeros((3, 3)), (9, 9))[..., 3] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_without_heat_is_left_as_it_is(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    cold = np.asarray(overlay_heatmap(pixels, np.zeros((4, 4))))
    assert np.array_equal(cold, pixels.repeat(3 // channels, 2))
    warm = np.asarray(overlay_heatmap(pixels, CORNER))
    changed = (warm != cold).any(-1)
    assert changed[:5, :7].all()
    assert not changed[10:, 15:].any()


def test_small_pictures_are_enlarged_pixel_by_pixel():
    image = to_color(np.arange(12, dtype=np.uint8).reshape(2, 6, 1))
    large = np.asarray(enlarge(image, 5))
    assert large.shape == (6, 18, 3)
    assert (large[:3, 3:6] == 1).all()
    assert enlarge(image, 2).size == image.size


def test_what_is_encoded_can_be_read_back():
    pixels = np.full((3, 5, 4), 77, np.uint8)
    with Image.open(io.BytesIO(encode_image(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    with Image.open(io.BytesIO(encode_image(to_color(pixels[..., :3]), "WEBP"))) as image:
        assert image.format == "WEBP"
