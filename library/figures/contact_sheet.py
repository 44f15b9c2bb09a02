"""Many small images with captions on one sheet."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN_PIXELS = 4
_LEAST_EDGE_PIXELS = 96


def draw_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int = 8,
    least_edge: int = _LEAST_EDGE_PIXELS,
) -> Image.Image:
    """Draw images of one size on a sheet.

    Args:
        images: uint8 (height, width, 1 or 3).
        captions: One per image; may have several lines.
        columns: Images per row.
        least_edge: Smaller images are enlarged to at least this many pixels, by a whole number,
            so that each of their pixels can be seen.
    """
    height, width = images[0].shape[:2]
    scale = max(1, -(-least_edge // min(height, width)))
    # Readable even if the sheet is shown at half its size.
    font_pixels = max(11, width * scale // 14)
    font, line = ImageFont.load_default(font_pixels), font_pixels + 3
    head = line * max(each.count("\n") + 1 for each in captions)
    cell = (width * scale + _MARGIN_PIXELS, height * scale + head + _MARGIN_PIXELS)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = (columns * cell[0] + _MARGIN_PIXELS, rows * cell[1] + _MARGIN_PIXELS)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left = _MARGIN_PIXELS + number % columns * cell[0]
        top = _MARGIN_PIXELS + number // columns * cell[1]
        sheet.paste(_enlarge(image, scale), (left, top + head))
        # From the last line, just above the image, upwards.
        for row, text in enumerate(reversed(lines.split("\n")), start=1):
            position = left, top + head - row * line
            draw.text(position, _shorten(text, width * scale, font), "black", font)
    return sheet


def caption(label: Any, classes: Sequence[str]) -> str:
    """Return the text for a label: a class id, multi-label zeros and ones, or shares of classes.

    Of shares, the largest two get a line each, unless they are below half a percent.
    """
    if np.ndim(label) == 0:
        return classes[int(label)]
    if set(label) <= {0, 1}:
        return " + ".join(classes[each] for each in np.flatnonzero(label).tolist()) or "none"
    largest = np.argsort(-label, kind="stable")[:2]
    shares = [(classes[each], round(100 * label[each])) for each in largest]
    shares = [(name, share) for name, share in shares if share]
    if len(shares) == 1:
        return shares[0][0]
    return "\n".join(f"{share:.0f}% {name}" for name, share in shares)


def draw_batch(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """Draw a batch: uint8 images (batch, height, width, 1 or 3), captioned with their labels."""
    return draw_sheet(list(images), [caption(label, classes) for label in labels])


def _enlarge(image: np.ndarray, scale: int) -> Image.Image:
    pixels = np.repeat(image, 3 // image.shape[2], axis=2)
    return Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))


def _shorten(text: str, width: int, font: Any) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
