"""What other decoders make of an image file: an oracle for conversion."""

import contextlib
import io
import warnings

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from library.dataset.images import FORMATS

# Reasons that are decisions of this project, however well another decoder reads the file.
DECIDED = (
    "more than 128 million",
    "range is unknown",
    "neither color nor alpha",
    "separate planes",
    "is a damaged JPEG: Corrupt JPEG data",
    "is a damaged JPEG: Premature end",
)
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II", b"MM", b"RIFF")
_SRGB = ImageCms.createProfile("sRGB")


def find_decoders(content):
    """Return the names of the decoders that read a file, of Pillow and OpenCV."""
    decoders = {"Pillow": decode_with_pillow}
    if content.startswith(SIGNATURES):
        # OpenCV reads other formats, too.
        decoders["OpenCV"] = _decode_with_opencv
    return [name for name, decode in decoders.items() if decode(content) is not None]


def decode_with_pillow(content, background=(255, 255, 255)):
    """Return an RGB image as plain scripts make it: upright, in sRGB, opaque; None if it fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                opened.load()
                profile = opened.info.get("icc_profile")
                return _to_rgb(ImageOps.exif_transpose(opened), profile, background)
    # A decoder that meets hostile bytes may raise anything.
    except Exception:
        return None


def _to_rgb(image, profile, background):
    if image.mode.startswith("I;16"):
        wide, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray((wide / 257).round().astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray((wide != transparent).astype(np.uint8) * 255))
    if image.mode == "LAB":
        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), _SRGB, outputMode="RGB"
        )
    alpha = None
    if image.has_transparency_data or image.mode == "La":
        image = image.convert("LA" if image.mode in ("L", "LA", "La", "1") else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB" if image.mode != "1" else "L")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), _SRGB
            image = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    image = image.convert("RGB")
    if alpha is None:
        return image
    return Image.composite(image, Image.new("RGB", image.size, background), alpha)


def _decode_with_opencv(content):
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def similarity(encoded, expected):
    """Return the peak signal-to-noise ratio, in dB, of a stored JPEG and an image resized to it."""
    found = Image.open(io.BytesIO(encoded)).convert("RGB")
    if expected.size != found.size:
        expected = expected.resize(found.size, Image.Resampling.LANCZOS)
    error = np.mean((np.asarray(found, float) - np.asarray(expected, float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))
