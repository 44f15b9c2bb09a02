"""Heatmaps drawn over images."""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

# From little evidence to much: dark violet, red, yellow, white, which differ in gray, too.
_COLORS = np.array([(59, 15, 112), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float32)
_MAX_OPACITY = 0.6
# Below this value a heatmap is transparent.
_MIN_HEAT = 0.05


def color_heatmap(
    heatmap: np.ndarray,
    size: tuple[int, int],
    region: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
) -> np.ndarray:
    """Return a heatmap in color, transparent where there is no evidence, to be laid over an image.

    Args:
        heatmap: (rows, columns) in [0, 1], which is enlarged smoothly.
        size: (width, height) of the image.
        region: (top, left, bottom, right) of what the heatmap covers, in shares of the image's
            edges: see Fit.region.

    Returns:
        uint8 RGBA, (height, width, 4).
    """
    edges = np.array(size[::-1])
    begin, end = np.round(np.reshape(region, (2, 2)) * edges).astype(int)
    rows, columns = np.maximum(end - begin, 1)
    covered = cv2.resize(
        np.asarray(heatmap, np.float32), (columns, rows), interpolation=cv2.INTER_CUBIC
    )
    large = np.zeros(edges, np.float32)
    (top, left), (y, x) = np.maximum(begin, 0), np.maximum(-begin, 0)
    visible = covered[y:, x:].clip(0, 1)[: edges[0] - top, : edges[1] - left]
    large[top : top + visible.shape[0], left : left + visible.shape[1]] = visible
    steps = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(large, steps, _COLORS[:, channel]) for channel in range(3)]
    opacity = 255 * _MAX_OPACITY * np.clip((large - _MIN_HEAT) / (0.5 - _MIN_HEAT), 0, 1)
    return np.stack([*channels, opacity], -1).round().astype(np.uint8)


def overlay_heatmap(pixels: Any, heatmap: np.ndarray) -> Image.Image:
    """Return an image, uint8 (height, width, 1 or 3) or of Pillow, under a heatmap."""
    image = to_rgb_image(pixels).convert("RGBA")
    colors = Image.fromarray(color_heatmap(heatmap, image.size))
    return Image.alpha_composite(image, colors).convert("RGB")


def to_rgb_image(pixels: Any) -> Image.Image:
    """Return uint8 pixels (height, width[, 1 or 3]) as a Pillow image in RGB."""
    pixels = np.asarray(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).convert("RGB")


def enlarge(image: Image.Image, min_edge_pixels: int) -> Image.Image:
    """Return a small image enlarged by a whole number, so that each pixel can be seen."""
    factor = max(1, -(-min_edge_pixels // min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def encode_image(image: Image.Image | np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of a Pillow image, or of uint8 pixels, as a file."""
    content = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(content, format, **options)
    return content.getvalue()
