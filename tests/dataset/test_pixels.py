import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from library.dataset.pixels import (
    apply_orientation,
    encode_jpeg,
    fitted_size,
    is_srgb,
    lab_to_srgb,
    shrink,
    to_gray,
    to_srgb,
)


def psnr(one, other):
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def picture(width, height):
    """Smooth waves of several frequencies: what a photograph is made of."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / a + y / b) for a, b in ((40, 90), (7, 13), (15, -9))]
    gray = (sum(waves) / 6 + 0.5) * 255
    return np.stack([gray, gray[::-1], gray[:, ::-1]], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "max_edge", "expected"),
    [
        ((500, 375), 384, (384, 288)),
        ((375, 500), 384, (288, 384)),
        ((100, 80), 384, (100, 80)),
        ((384, 384), 384, (384, 384)),
        ((10_000, 1), 384, (384, 1)),
        ((5000, 4000), 0, (5000, 4000)),
    ],
)
def test_the_longer_edge_is_capped_and_never_enlarged(size, max_edge, expected):
    assert fitted_size(*size, max_edge) == expected


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 450, 500, 640, 768, 900, 1500, 4000])
def test_shrinking_is_nearly_lanczos(width):
    pixels = picture(width, width * 3 // 4)
    lanczos = Image.fromarray(pixels).resize((384, 288), Image.Resampling.LANCZOS)
    assert psnr(shrink(pixels, (384, 288)), lanczos) > 36


def test_shrinking_to_one_pixel_and_of_one_pixel():
    assert shrink(picture(3, 900), (1, 384)).shape == (384, 1, 3)
    assert shrink(picture(5000, 4), (384, 1)).shape == (1, 384, 3)
    assert (shrink(np.full((9, 9), 7, np.uint8), (3, 3)) == 7).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_agrees_with_pillow(orientation):
    image = Image.fromarray(picture(7, 4))
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    assert (apply_orientation(np.asarray(image), orientation) == expected).all()


def test_gray_is_pillows():
    pixels = picture(20, 10)
    expected = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
    assert abs(to_gray(pixels) - expected).max() <= 1


@pytest.mark.parametrize(("has_full_color", "subsampling"), [(True, 0), (False, 2)])
@pytest.mark.parametrize("quality", [75, 95, 100])
def test_what_is_encoded_has_the_pixels_of_pillows_encoder(quality, has_full_color, subsampling):
    for image in (Image.fromarray(picture(50, 41)), Image.fromarray(picture(50, 41)).convert("L")):
        theirs = io.BytesIO()
        image.save(theirs, "JPEG", quality=quality, subsampling=subsampling)
        ours = io.BytesIO(encode_jpeg(np.asarray(image), quality, has_full_color))
        assert np.array_equal(*(np.asarray(Image.open(each)) for each in (ours, theirs)))


def test_srgb_profiles_are_known_and_others_are_applied():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert is_srgb(srgb)
    assert is_srgb(b"")
    assert not is_srgb(b"something else")
    image = Image.fromarray(picture(8, 8))
    assert (np.asarray(to_srgb(image, b"no profile at all")) == np.asarray(image)).all()


def test_lab_is_converted():
    # L 100 %, a and b in the middle: white.
    assert lab_to_srgb(Image.new("LAB", (1, 1), (255, 128, 128))).getpixel((0, 0)) >= (250,) * 3
