"""Heat drawn over the picture that it is about."""

import io

import cv2
import numpy as np
from PIL import Image

# From little heat to much: dark violet, red, yellow, white. Told apart in gray, too.
_COLORS = np.array([(59, 15, 112), (183, 55, 121), (252, 137, 97), (252, 253, 191)], np.float32)
# How much of the picture the hottest place still lets through.
_THICKEST = 0.6
# Below this heat the picture stays as it is.
_FAINT = 0.05


def color_heatmap(heat, size):
    """Return heat (rows, columns) from 0 to 1 as uint8 colors with their opacity, RGBA.

    `size` is (width, height): heat is enlarged smoothly, squeezed as the network's picture was.
    """
    large = cv2.resize(np.asarray(heat, np.float32), size, interpolation=cv2.INTER_CUBIC)
    large = large.clip(0, 1)
    steps = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(large, steps, _COLORS[:, each]) for each in range(3)]
    opacity = 255 * _THICKEST * np.clip((large - _FAINT) / (0.5 - _FAINT), 0, 1)
    return np.stack([*channels, opacity], -1).round().astype(np.uint8)


def overlay_heatmap(picture, heat):
    """Return a Pillow image: uint8 pixels (height, width, 1 or 3) under their heat."""
    ground = to_color(picture).convert("RGBA")
    return Image.alpha_composite(ground, Image.fromarray(color_heatmap(heat, ground.size))).convert(
        "RGB"
    )


def to_color(pixels):
    """Return uint8 pixels (height, width[, 1 or 3]) as a Pillow image in RGB."""
    pixels = np.asarray(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).convert("RGB")


def enlarge(image, least_edge):
    """Return a small Pillow image enlarged by a whole number, so that each pixel can be seen."""
    times = max(1, -(-least_edge // min(image.size)))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def encode_image(image, kind="PNG", **options):
    """Return the bytes of a Pillow image, or of uint8 pixels."""
    content = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(content, kind, **options)
    return content.getvalue()
