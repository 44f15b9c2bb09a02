"""Arrays of pixels made smaller, turned, and brought to sRGB."""

import io
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageCms

# Workers are processes, one to a core: threads inside them would only compete.
cv2.setNumThreads(1)
# How many times larger than wanted an image may at least be for the last step, which filters it.
# Below 1.2, what a JPEG decoder's own scaling blurs would show.
LEAST_REDUCTION = 1.2
TAPS = 9
# How much finer the detail is that the filter lets through than what fewer pixels can show: cubic
# interpolation blurs a little by itself. Found by trying 1 to 1.15 on photographs.
PASS = 1.07


def fitted_size(width, height, max_edge):
    """Give (width, height), never enlarged, with the longer edge at most `max_edge` (0: any)."""
    longer = max(width, height)
    if not max_edge or longer <= max_edge:
        return width, height
    return (
        max(1, round(width * max_edge / longer)),
        max(1, round(height * max_edge / longer)),
    )


def shrink(pixels, size):
    """Return uint8 pixels resized to the smaller `size` (width, height), about as Lanczos does.

    A low-pass filter, then cubic interpolation: three times as fast as Pillow's Lanczos, and it
    keeps as much detail to within 0.3 dB (`benchmarks/conversion.py` measures both).
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    reduction = max(width / size[0], height / size[1])
    whole = int(reduction / LEAST_REDUCTION)
    if whole > 1:
        # The filter is short: much larger images are first averaged, whole pixels at a time.
        smaller = (max(size[0], width // whole), max(size[1], height // whole))
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
        reduction = max(smaller[0] / size[0], smaller[1] / size[1])
    kernel = _low_pass(round(reduction, 3))
    pixels = cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)


def turn(pixels, orientation):
    """Return the pixels as Exif's orientation (1 to 8) means them to be seen."""
    if orientation in (2, 3):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4):
        pixels = pixels[::-1]
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def is_srgb(profile):
    """Return whether an ICC profile calls itself sRGB, so that there is nothing to convert."""
    return not profile or b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile


def to_srgb(image, profile):
    """Return a Pillow image in RGB, its colors converted from an ICC profile to sRGB.

    A profile that is damaged, or meant for another kind of image, is left out of account.
    """
    try:
        return ImageCms.applyTransform(image, _transform(profile, image.mode))
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image.convert("RGB")


def lab_to_srgb(image):
    """Return a Pillow image in the mode LAB as one in RGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")


# Photographs of one camera share a profile.
@lru_cache(maxsize=16)
def _transform(profile, mode):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, srgb, mode, "RGB")


@lru_cache(maxsize=256)
def _low_pass(reduction):
    """Return taps of a windowed sinc that keeps what `reduction` times fewer pixels can show."""
    x = np.arange(TAPS) - TAPS // 2
    taps = np.sinc(PASS * x / reduction) * np.sinc(x / (TAPS / 2 + 0.5))
    return (taps / taps.sum()).astype(np.float32)


def to_gray(pixels):
    """Return the brightness of uint8 pixels as JPEG means it, shape (height, width)."""
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def encode_jpeg(pixels, quality, has_full_color):
    """Return the bytes of a JPEG of uint8 pixels, shape (height, width[, 3]).

    `has_full_color`: color at the full resolution, else at half of it.
    """
    # Not simplejpeg: below quality 96 its cosine transform is the coarse one, which no longer is
    # faster. This one is accurate, and TensorFlow's encoder, in an exported model, has the same.
    full, half = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    sampling = full if has_full_color else half
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    choices = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", pixels, choices)[1].tobytes()


def as_array(image):
    """Return a Pillow image (L or RGB) as uint8 pixels, shape (height, width[, 3])."""
    return np.asarray(image)


def as_image(pixels):
    """Return uint8 pixels as a Pillow image."""
    return Image.fromarray(pixels)
