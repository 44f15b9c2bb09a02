"""One file's bytes → a conformant JPEG, or the reason why not. Contents decide, not names.

Conformant means: baseline, upright, sRGB or gray as asked, no longer than `max_edge`.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from library.dataset.jpeg import is_whole, read_jpeg_header
from library.dataset.pixels import (
    LEAST_REDUCTION,
    as_array,
    as_image,
    encode_jpeg,
    fitted_size,
    is_srgb,
    lab_to_srgb,
    shrink,
    to_gray,
    to_srgb,
    turn,
)
from library.errors import first_line

KINDS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
# Our own limit stands in its place, and refuses where this one would only warn.
Image.MAX_IMAGE_PIXELS = None
_ORIENTATION = 0x0112
# On so small an image, color at half the resolution would show.
SMALL_EDGE = 128
# The longest edge that libjpeg takes.
MOST_EDGE = 65_500
# What is held of an image while it is decoded, at most, and what a process takes by itself.
_BYTES_PER_PIXEL, _LEAST_MEMORY = 16, 2 << 30
_TRANSPARENT = {"RGBA", "LA", "PA", "La", "RGBa"}


class UnusableImageError(Exception):
    """The bytes are no image that can be used; the text says why, after the file's name.

    `option` is the converter's that would let it pass, if one would.
    """

    def __init__(self, text, option=None):
        super().__init__(text)
        self.option = option


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What a stored image may be.

    `max_edge` in pixels, 0: any. `background` is seen through what is transparent, 0 to 255 each.
    """

    max_edge: int = 384
    quality: int = 95
    color_space: str = "rgb"
    background: tuple[int, int, int] = (255, 255, 255)
    max_pixels: int = 128_000_000

    @property
    def memory_bytes(self):
        """What a process that decodes may need at most."""
        return max(_LEAST_MEMORY, _BYTES_PER_PIXEL * self.max_pixels)


def convert_image(content, options):
    """Give (JPEG bytes, height, width). Raises UnusableImageError, MemoryError."""
    kept = keep_image(content, options)
    if kept:
        return kept
    pixels, _ = decode_image(content, options)
    return _encoded(pixels, options)


def keep_image(content, options):
    """Give (bytes, height, width) of a JPEG that needs no conversion, None for all else.

    Reads markers only: no decoder runs. Raises UnusableImageError.
    """
    header = _jpeg_header(content)
    if header and _is_conformant(header, options) and is_whole(content, header):
        _check_pixels(header.width, header.height, options)
        return content, header.height, header.width
    return None


def decode_image(content, options):
    """Give (pixels, (width, height) of the whole image): uint8, upright, no larger than wanted.

    Raises UnusableImageError, MemoryError.
    """
    if not content:
        raise UnusableImageError("is empty")
    header = _jpeg_header(content)
    if header is None:
        return _decode_other(content, options)
    _check_pixels(header.width, header.height, options)
    if header.components not in (1, 3):
        return _decode_other(content, options)
    pixels = _decode_jpeg(content, header, options)
    return pixels, _upright_size(header.width, header.height, header.orientation)


def _jpeg_header(content):
    """Return the header of a JPEG, None for anything else."""
    if not content.startswith(b"\xff\xd8\xff"):
        return None
    header = read_jpeg_header(content)
    if header is None:
        raise UnusableImageError("is a JPEG cut short, or damaged")
    return header


def _upright_size(width, height, orientation):
    return (height, width) if orientation >= 5 else (width, height)


def _is_conformant(header, options):
    return (
        header.is_baseline
        and header.is_ycc
        and header.components == (1 if options.color_space == "gray" else 3)
        and header.orientation == 1
        and fitted_size(header.width, header.height, options.max_edge)
        == (header.width, header.height)
        and is_srgb(header.icc_profile)
    )


def _check_pixels(width, height, options):
    if width < 1 or height < 1:
        raise UnusableImageError(f"has {width}x{height} pixels")
    if width * height > options.max_pixels:
        raise UnusableImageError(
            f"has {width}x{height} pixels, more than {options.max_pixels / 1e6:g} million",
            "--max_megapixels",
        )


def _decode_jpeg(content, header, options):
    """Return upright pixels, no larger than wanted, of a JPEG with one or three components."""
    size = fitted_size(header.width, header.height, options.max_edge)
    wants_profile = not is_srgb(header.icc_profile)
    gray = header.components == 1 or (options.color_space == "gray" and not wants_profile)
    pixels = _decode_scaled(content, header, size, "GRAY" if gray else "RGB")
    pixels = shrink(pixels[..., 0] if gray else pixels, size)
    if wants_profile:
        # Now that it is small.
        pixels = as_array(to_srgb(as_image(pixels), header.icc_profile))
    return turn(pixels, header.orientation)


def _decode_scaled(content, header, size, color_space):
    # libjpeg decodes at 1/2, 1/4 and 1/8 for a fraction of the work.
    reduction = min(header.width / size[0], header.height / size[1]) / LEAST_REDUCTION
    scale = next((each for each in (8, 4, 2) if each <= reduction), None)
    least = {}
    if scale:
        least = {"min_height": -(-header.height // scale), "min_width": -(-header.width // scale)}
    try:
        return simplejpeg.decode_jpeg(content, color_space, **least)
    except ValueError as error:
        # Strict decoding stops at what libjpeg only warns of. Stray bytes between segments, which
        # some cameras write, harm nothing; a stream that ends early or makes no sense does.
        if "extraneous bytes" not in str(error) and "Invalid SOS" not in str(error):
            raise UnusableImageError(f"is a damaged JPEG: {first_line(error)}") from None
        return simplejpeg.decode_jpeg(content, color_space, strict=False, **least)


def _decode_other(content, options):
    """Give (upright pixels, no larger than wanted; (width, height)) of what Pillow can read."""
    try:
        with warnings.catch_warnings():
            # What Pillow warns of (odd metadata, above all) concerns none of the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=KINDS) as image:
                # Opening has read the header only.
                _check_pixels(*image.size, options)
                image.load()
                pixels = as_array(_plain(image, options))
                # After loading: Pillow itself turns a TIFF, and then forgets its orientation.
                orientation = _orientation_of(image)
    except Image.UnidentifiedImageError:
        raise UnusableImageError("is no JPEG, PNG, GIF, BMP, TIFF or WebP image") from None
    except MemoryError:
        raise
    except UnusableImageError:
        raise
    # A decoder that meets hostile bytes may raise anything.
    except Exception as error:
        raise UnusableImageError(f"can't be decoded: {first_line(error)}") from None
    height, width = pixels.shape[:2]
    pixels = turn(shrink(pixels, fitted_size(width, height, options.max_edge)), orientation)
    return pixels, _upright_size(width, height, orientation)


def _orientation_of(image):
    try:
        return image.getexif().get(_ORIENTATION, 1)
    # Damaged Exif turns nothing, as in a JPEG; it may raise whatever parsing it comes upon.
    except Exception:
        return 1


def _plain(image, options):
    """Return a loaded Pillow image as L or RGB with 8 bits, opaque, in sRGB."""
    if image.mode.startswith("I;16"):
        # Pillow's own conversion would clip: every pixel above 255 white.
        wide = np.asarray(image).astype(np.uint32)
        return as_image(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnusableImageError("has 32 bits to a pixel, of which the range is unknown")
    if image.mode == "LAB":
        return lab_to_srgb(image)
    profile = image.info.get("icc_profile", b"")
    alpha = None
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if not is_srgb(profile):
        image = to_srgb(image, profile)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    if alpha is None:
        return image
    return Image.composite(
        image.convert("RGB"), Image.new("RGB", image.size, options.background), alpha
    )


def _encoded(pixels, options):
    """Give (JPEG bytes, height, width) of upright uint8 pixels."""
    height, width = pixels.shape[:2]
    if options.color_space == "gray":
        pixels = to_gray(pixels)
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if max(height, width) > MOST_EDGE:
        raise UnusableImageError(
            f"has {width}x{height} pixels: a JPEG holds {MOST_EDGE:,} an edge", "--max_edge"
        )
    is_small = max(height, width) <= SMALL_EDGE
    return encode_jpeg(pixels, options.quality, is_small), height, width
