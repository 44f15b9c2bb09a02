"""Samples of 16 bits → 8 bits, and how many of the 16 an image uses."""

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

_WHITE_IS_ZERO = 0
# Where a PNG has its bits per sample.
_PNG_DEPTH = 24
# A quarter of full brightness, at most.
_FEW_BITS = 14


def to_8_bits(image: Image.Image) -> Image.Image:
    """Return an image of 16-bit gray as L, or LA if a gray is transparent; any other as it is."""
    if not image.mode.startswith("I;16"):
        return image
    largest, is_inverted = 65535, False
    if isinstance(image, TiffImageFile):
        # Samples of 12 bits have this mode, too; and Pillow inverts samples of 8 bits only.
        largest = 2 ** max(image.tag_v2.get(BITSPERSAMPLE, (16,))) - 1
        is_inverted = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO
    # Pillow's own conversion clips: all above 255 would be white.
    wide = np.asarray(image).astype(np.uint32)
    shades = ((wide * 255 + largest // 2) // largest).astype(np.uint8)
    gray = Image.fromarray(255 - shades if is_inverted else shades)
    if (transparent := image.info.get("transparency")) is not None:
        gray.putalpha(Image.fromarray(np.where(wide == transparent, 0, 255).astype(np.uint8)))
    return gray


def describe_unused_bits(content: bytes, image: Image.Image) -> str:
    """Return how many bits an image uses if its samples have 16 and use far fewer, otherwise "".

    Cameras and scanners write 10 to 14 bits into files of 16: nearly black, if 65535 is white.

    Args:
        content: The file's bytes.
        image: The loaded image.
    """
    bits = 8
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(BITSPERSAMPLE, (1,)))
    elif content.startswith(b"\x89PNG"):
        bits = content[_PNG_DEPTH]
    if bits != 16:
        return ""
    bands = np.atleast_3d(np.asarray(image))
    # The last band may be alpha.
    largest = int(bands[..., : 3 if image.mode.startswith("RGB") else 1].max())
    # Of colors, Pillow keeps the higher eight bits.
    used = largest.bit_length() + (0 if image.mode.startswith("I;16") else 8)
    return f"only {used} of 16 bits per sample" if 0 < used <= _FEW_BITS else ""
