"""Arrays of uint8 pixels: resize, orient, convert to sRGB or gray, encode as JPEG."""

import io
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageCms

# Each worker is a process with one core: threads inside it would only compete.
cv2.setNumThreads(1)
# The last step, which filters, shrinks by at least this factor. Below 1.2, the blur of a JPEG
# decoder's own scaling would show.
MIN_REDUCTION = 1.2
FILTER_TAPS = 9
# Cubic interpolation blurs a little, so the filter passes detail that is this much finer than what
# the smaller image can show. Found by trying 1 to 1.15 on photographs.
PASSBAND = 1.07
# The profiles that are called sRGB differ from one another by 1 of 255; the nearest other curve, of
# L*, by 9.
SRGB_TOLERANCE = 3
# Exif's orientation → (whether to mirror left to right, then quarter turns to the left).
_TURNS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}
_PROFILE_ERRORS = (ImageCms.PyCMSError, ValueError, OSError)


def fitted_size(width: int, height: int, max_edge: int) -> tuple[int, int]:
    """Return (width, height) scaled down, if need be, to a longest edge.

    Args:
        width: In pixels.
        height: In pixels.
        max_edge: Longest edge in pixels; 0: any.
    """
    longer = max(width, height)
    if not max_edge or longer <= max_edge:
        return width, height
    return max(1, round(width * max_edge / longer)), max(1, round(height * max_edge / longer))


def shrink(
    pixels: np.ndarray, size: tuple[int, int], extent: tuple[float, float] | None = None
) -> np.ndarray:
    """Return uint8 pixels resized to a smaller size, much as Lanczos does.

    A low-pass filter, then cubic interpolation: three times as fast as Pillow's Lanczos, with as
    much detail to within 0.3 dB (`benchmarks/conversion.py` measures both).

    Args:
        pixels: Shape (height, width[, channels]).
        size: (width, height) of the result.
        extent: (width, height) of the image in pixels, if it covers only a part of the last column
            and row; None: all of them.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    x, y = extent or (width, height)
    reduction = max(x / size[0], y / size[1])
    whole = int(reduction / MIN_REDUCTION)
    if whole > 1:
        # The filter is short: much larger images are first averaged over whole pixels.
        smaller = (max(size[0], width // whole), max(size[1], height // whole))
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
        x, y = x * smaller[0] / width, y * smaller[1] / height
        reduction = max(x / size[0], y / size[1])
    kernel = _low_pass(round(reduction, 3))
    pixels = cv2.sepFilter2D(pixels, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    if (y, x) == pixels.shape[:2]:
        return cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    # With factors instead of a size, the partial column and row may make one more, which is cut.
    fx, fy = size[0] / x, size[1] / y
    larger = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=cv2.INTER_CUBIC)
    return larger[: size[1], : size[0]]


@lru_cache(maxsize=256)
def _low_pass(reduction: float) -> np.ndarray:
    """Return the taps of a windowed sinc for an image with `reduction` times fewer pixels."""
    x = np.arange(FILTER_TAPS) - FILTER_TAPS // 2
    taps = np.sinc(PASSBAND * x / reduction) * np.sinc(x / (FILTER_TAPS / 2 + 0.5))
    return (taps / taps.sum()).astype(np.float32)


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels upright, by Exif's orientation (1 to 8)."""
    is_mirrored, quarter_turns = _TURNS[orientation]
    pixels = np.rot90(pixels[:, ::-1] if is_mirrored else pixels, quarter_turns)
    return np.ascontiguousarray(pixels)


# Most images of a dataset share a few profiles.
@lru_cache(maxsize=64)
def is_srgb(profile: bytes, mode: str) -> bool:
    """Return whether an image's colors are those of sRGB, so that there is nothing to convert.

    What a profile does to a grid of colors decides, not its name. A profile that is damaged, or
    made for another kind of image, is ignored.

    Args:
        profile: The ICC profile; empty if there is none.
        mode: The image's mode, as Pillow names it: L, RGB or CMYK.
    """
    if not profile:
        return True
    grid = np.arange(256) if mode == "L" else np.indices((9,) * len(mode)).reshape(len(mode), -1).T
    shades = (grid if mode == "L" else grid * 255 // 8).astype(np.uint8)[None]
    try:
        # Building a transform for millions of pixels would take ten times as long.
        transform = _make_transform(profile, mode, ImageCms.Flags.NOOPTIMIZE)
        converted = ImageCms.applyTransform(Image.fromarray(shades, mode), transform)
    except _PROFILE_ERRORS:
        return True
    if mode == "CMYK":
        return False
    shades = shades if mode == "RGB" else shades[..., None]
    difference = np.asarray(converted).astype(int) - shades
    return bool(abs(difference).max() <= SRGB_TOLERANCE)


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return a Pillow image in RGB, its colors converted from an ICC profile to sRGB.

    A profile that is damaged, or made for another kind of image, is ignored.
    """
    try:
        converted = ImageCms.applyTransform(image, _transform(profile, image.mode))
    except _PROFILE_ERRORS:
        converted = None
    return converted or image.convert("RGB")


# Photographs of one camera share a profile.
@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    return _make_transform(profile, mode)


def _make_transform(
    profile: bytes, mode: str, flags: ImageCms.Flags = ImageCms.Flags.NONE
) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Return a Pillow image in the mode LAB as one in RGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    return converted or image


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Return the luma of uint8 pixels as JPEG defines it, shape (height, width)."""
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def encode_jpeg(pixels: np.ndarray, quality: int, has_full_color: bool) -> bytes:
    """Return the bytes of a JPEG.

    Args:
        pixels: uint8, shape (height, width) or (height, width, 3).
        quality: 1 to 100.
        has_full_color: Store color at full resolution (4:4:4), else at half of it (4:2:0).
    """
    # Not simplejpeg: below quality 96 it uses the fast, coarse cosine transform, which is no faster
    # today. OpenCV uses the accurate one, as TensorFlow's encoder in an exported model does.
    full, half = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    sampling = full if has_full_color else half
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()
