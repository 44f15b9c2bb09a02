"""Turn the bytes of one file into a conformant JPEG, or say why not. Contents decide, not names.

Conformant means: baseline, upright, sRGB or gray as asked, no longer than `max_edge`.
"""

import io
import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, PngImagePlugin

from library.dataset.bit_depth import describe_unused_bits, to_8_bits
from library.dataset.jpeg import JpegHeader, find_end, orientation_of, read_jpeg_header
from library.dataset.options import MAX_JPEG_EDGE, ImageOptions
from library.dataset.pixels import (
    MIN_REDUCTION,
    apply_orientation,
    encode_jpeg,
    fitted_size,
    is_srgb,
    lab_to_srgb,
    shrink,
    to_gray,
    to_srgb,
)
from library.dataset.tiff import describe, find_flaw, is_tiff
from library.errors import first_line

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
# Pillow would only warn of large images; `ImageOptions.max_pixels` refuses them.
Image.MAX_IMAGE_PIXELS = None
# Pillow would refuse a PNG for a text or a color profile of 1 MiB; all texts together have a limit.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
_TRANSPARENT = {"RGBA", "LA", "PA", "La", "RGBa"}
_JPEG, _JPEG_LS = b"\xff\xd8\xff", b"\xff\xd8\xff\xf7"
# What libjpeg says of compressed data that ends early or makes no sense. Its other warnings, of
# stray bytes for one, do no harm, and other errors may be of kinds that only Pillow reads.
_DAMAGE = ("premature end", "Premature end", "Huffman", "bad arithmetic code", "found marker")


class UnusableImageError(Exception):
    """The image can't be used; the text gives the reason, to follow the file's name."""


class _UnknownJpegError(Exception):
    """libjpeg-turbo's own interface can't read a JPEG; the text is its reason."""


class EncodedImage(NamedTuple):
    """A conformant JPEG and its size in pixels."""

    content: bytes
    height: int
    width: int


def convert_image(
    content: bytes, options: ImageOptions, notes: list[str] | None = None
) -> EncodedImage:
    """Return a file's image as a conformant JPEG.

    Args:
        content: The file's bytes.
        options: How to store the image.
        notes: Takes what is odd about the image; see `decode_image`.

    Raises:
        UnusableImageError: The bytes are not an image, or one that is damaged or too large.
        MemoryError: Decoding needs more memory than there is.
    """
    unchanged = find_conformant(content, options)
    if unchanged:
        check_decodable(*unchanged)
        return unchanged
    pixels, _ = decode_image(content, options, notes)
    return _encode(pixels, options)


def find_conformant(content: bytes, options: ImageOptions) -> EncodedImage | None:
    """Return a JPEG that needs no conversion as it is, or None. No decoder runs.

    The one rule for all that prepares images; library/export/bytes_to_pixels.py has it as a graph.
    What stands behind the end of the image is cut off: no decoder reads it.

    Raises UnusableImageError.
    """
    header = _read_header(content)
    if header and _is_conformant(header, options) and (end := find_end(content, header)):
        _check_pixel_count(header.width, header.height, options)
        return EncodedImage(content[:end], header.height, header.width)
    return None


def check_decodable(content: bytes, height: int, width: int) -> None:
    """Raise UnusableImageError unless a JPEG of this size decodes, and without signs of damage.

    At 1/8 of its size, which costs half the time and still reads every byte.
    """
    least = {"min_height": -(-height // 8), "min_width": -(-width // 8)}
    try:
        _decode_strictly(content, "GRAY", least)
    except _UnknownJpegError:
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                image.draft("L", (least["min_width"], least["min_height"]))
                image.load()
        # A decoder that meets hostile bytes may raise anything.
        except Exception as error:
            raise UnusableImageError(f"is a damaged JPEG: {first_line(error)}") from None


def decode_as_tensorflow(
    image: EncodedImage, channels: int, reduction: int = 1, *, is_exact: bool = False
) -> np.ndarray | None:
    """Decode a conformant JPEG to the pixels of `tf.io.decode_jpeg`, without signs of damage.

    For those who would call `check_decodable` first: the data is read once instead of twice.

    Args:
        image: What `find_conformant` returned.
        channels: 1 or 3.
        reduction: 2, 4 or 8 for a half, a quarter or an eighth of height and width, rounded up.
        is_exact: TensorFlow's `fancy_upscaling`.

    Returns:
        uint8 pixels (height, width, channels); None if only TensorFlow can decode the JPEG.

    Raises:
        UnusableImageError: The JPEG is damaged.
    """
    content, *size = image
    # Of a smaller image, several reductions have the same height and width.
    if reduction > 1 and max(size) < 16:
        return None
    height, width = (-(-each // reduction) if reduction > 1 else 0 for each in size)
    # TensorFlow takes libjpeg's faster cosine transform.
    options = {"fastdct": True, "fastupsample": not is_exact}
    color_space = "GRAY" if channels == 1 else "RGB"
    try:
        least = {"min_height": height, "min_width": width}
        return _decode_strictly(content, color_space, least | options)
    except _UnknownJpegError:
        return None


def decode_image(
    content: bytes, options: ImageOptions, notes: list[str] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode a file's image.

    Args:
        content: The file's bytes.
        options: How the image is to be stored.
        notes: Takes what is odd about the image though it can be used, in words that follow "has".

    Returns:
        (pixels, (width, height) of the original): uint8, upright, at most `max_edge` long, of shape
        (height, width[, 3]).

    Raises:
        UnusableImageError: The bytes are not an image, or one that is damaged or too large.
        MemoryError: Decoding needs more memory than there is.
    """
    if not content:
        raise UnusableImageError("is empty")
    header = _read_header(content)
    if header is None:
        return _decode_with_pillow(content, options, notes)
    _check_pixel_count(header.width, header.height, options)
    if header.components not in (1, 3):
        return _decode_with_pillow(content, options)
    try:
        pixels = _decode_jpeg(content, header, options)
    except _UnknownJpegError:
        return _decode_with_pillow(content, options)
    return pixels, _upright_size(header.width, header.height, header.orientation)


def _read_header(content: bytes) -> JpegHeader | None:
    """Return the header of a JPEG, None for other formats."""
    if not content.startswith(_JPEG):
        return None
    header = read_jpeg_header(content)
    if header is None:
        is_jpeg_ls = content.startswith(_JPEG_LS)
        raise UnusableImageError("is JPEG-LS" if is_jpeg_ls else "is a truncated or damaged JPEG")
    if header.precision != 8:
        raise UnusableImageError(f"is a JPEG of {header.precision} bits per sample, not 8")
    return header


def _upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation >= 5 else (width, height)


def _is_conformant(header: JpegHeader, options: ImageOptions) -> bool:
    size = (header.width, header.height)
    mode = "L" if options.color_space == "gray" else "RGB"
    return (
        header.is_baseline
        and header.is_ycc
        and not header.has_stray_bytes
        and header.components == len(mode)
        and header.orientation == 1
        and fitted_size(*size, options.max_edge) == size
        and is_srgb(header.icc_profile, mode)
    )


def _check_pixel_count(width: int, height: int, options: ImageOptions) -> None:
    if width < 1 or height < 1:
        raise UnusableImageError(f"has {width}x{height} pixels")
    if width * height > options.max_pixels:
        most = f"{options.max_pixels / 1e6:g} million (max_megapixels)"
        raise UnusableImageError(f"has {width}x{height} pixels, more than {most}")


def _decode_jpeg(content: bytes, header: JpegHeader, options: ImageOptions) -> np.ndarray:
    """Return upright pixels of a JPEG with one or three components."""
    size = fitted_size(header.width, header.height, options.max_edge)
    has_profile = not is_srgb(header.icc_profile, "L" if header.components == 1 else "RGB")
    is_gray = header.components == 1 or (options.color_space == "gray" and not has_profile)
    pixels, scale = _decode_scaled(content, header, size, "GRAY" if is_gray else "RGB")
    extent = (header.width / scale, header.height / scale)
    pixels = shrink(pixels[..., 0] if is_gray else pixels, size, extent)
    if has_profile:
        # Only now, because fewer pixels take less time.
        pixels = np.asarray(to_srgb(Image.fromarray(pixels), header.icc_profile))
    return apply_orientation(pixels, header.orientation)


def _decode_scaled(
    content: bytes, header: JpegHeader, size: tuple[int, int], color_space: str
) -> tuple[np.ndarray, int]:
    """Return (pixels, scale): libjpeg decodes at 1/2, 1/4, 1/8 far faster.

    The pixels are not much larger than `size`. The last row and column may be partly outside.
    """
    reduction = min(header.width / size[0], header.height / size[1]) / MIN_REDUCTION
    scale = next((factor for factor in (8, 4, 2) if factor <= reduction), 1)
    least = {}
    if scale > 1:
        least = {"min_height": -(-header.height // scale), "min_width": -(-header.width // scale)}
    return _decode_strictly(content, color_space, least), scale


def _decode_strictly(content: bytes, color_space: str, options: dict[str, int]) -> np.ndarray:
    """Return what simplejpeg decodes, with options of its own, without a warning.

    Raises UnusableImageError for damage, _UnknownJpegError for other warnings and errors.
    """
    try:
        return simplejpeg.decode_jpeg(content, color_space, **options)
    except ValueError as error:
        reason = first_line(error)
    if any(text in reason for text in _DAMAGE):
        raise UnusableImageError(f"is a damaged JPEG: {reason}")
    # Pillow is next: without `strict`, simplejpeg takes an error behind a warning for a warning.
    raise _UnknownJpegError(reason)


def _decode_with_pillow(
    content: bytes, options: ImageOptions, notes: list[str] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Do as decode_image does, for any format that Pillow reads."""
    if is_tiff(content) and (flaw := find_flaw(content)):
        raise UnusableImageError(flaw)
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which doesn't concern the pixels.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                # Opening has read the header only.
                _check_pixel_count(*image.size, options)
                image.load()
                if notes is not None and (note := describe_unused_bits(content, image)):
                    notes.append(note)
                pixels = np.asarray(_to_plain(image, options))
                # Read after loading, which turns a TIFF upright and removes its orientation.
                orientation = orientation_of(image)
    except Image.UnidentifiedImageError:
        raise UnusableImageError(_describe_unidentified(content)) from None
    except (MemoryError, UnusableImageError):
        raise
    # A decoder that meets hostile bytes may raise anything.
    except Exception as error:
        what = "is a damaged JPEG" if content.startswith(_JPEG) else "can't be decoded"
        raise UnusableImageError(f"{what}: {first_line(error)}") from None
    height, width = pixels.shape[:2]
    pixels = shrink(pixels, fitted_size(width, height, options.max_edge))
    return apply_orientation(pixels, orientation), _upright_size(width, height, orientation)


def _describe_unidentified(content: bytes) -> str:
    if is_tiff(content):
        return describe(content)
    if content.startswith(b"\x89PNG"):
        return "is a damaged PNG"
    return "is not a JPEG, PNG, GIF, BMP, TIFF or WebP image"


def _to_plain(image: Image.Image, options: ImageOptions) -> Image.Image:
    """Return a loaded Pillow image as L or RGB with 8 bits, opaque, in sRGB."""
    if image.mode == "LAB":
        return lab_to_srgb(image)
    if image.mode in ("I", "F"):
        raise UnusableImageError("has 32 bits per pixel, with an unknown range")
    profile = image.info.get("icc_profile", b"")
    image, alpha = _split_alpha(to_8_bits(image))
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if not is_srgb(profile, image.mode):
        image = to_srgb(image, profile)
    if image.mode == "CMYK":
        image = image.convert("RGB")
    if alpha is None:
        return image
    background = Image.new("RGB", image.size, options.background)
    return Image.composite(image.convert("RGB"), background, alpha)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return an image's colors and its alpha channel, None if it is opaque.

    Gray stays gray, so that its color profile fits.
    """
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image, None
    is_gray = image.mode in ("1", "L", "LA", "La")
    image = image.convert("LA" if is_gray else "RGBA")
    return image.convert("L" if is_gray else "RGB"), image.getchannel("A")


def _encode(pixels: np.ndarray, options: ImageOptions) -> EncodedImage:
    height, width = pixels.shape[:2]
    if options.color_space == "gray":
        pixels = to_gray(pixels)
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if max(height, width) > MAX_JPEG_EDGE:
        most = f"an edge of a JPEG has at most {MAX_JPEG_EDGE:,} (max_edge)"
        raise UnusableImageError(f"has {width}x{height} pixels; {most}")
    has_full_color = max(height, width) <= options.full_color_max_edge
    return EncodedImage(encode_jpeg(pixels, options.quality, has_full_color), height, width)
