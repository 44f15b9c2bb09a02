"""A small converted split of made-up photographs, for machines without data yet."""

from pathlib import Path

import numpy as np
from PIL import Image

from library.dataset.conversion import Source, convert
from library.dataset.manifest import Manifest
from library.dataset.options import ConversionOptions, ImageOptions

_CLASSES = 2


def make_split(folder: Path, height: int, width: int, images: int = 48) -> Manifest:
    """Write JPEGs with shapes of all sizes, convert them, and return the split's manifest.

    Args:
        folder: An empty folder.
        height: Of an image, in pixels.
        width: Of an image, in pixels.
        images: Their number.
    """
    random = np.random.default_rng(0)
    # As in photographs, the larger a shape, the stronger it is.
    layers = [_noise(random, height, width, edge) * edge**0.6 for edge in (1, 4, 16, 64)]
    for number in range(images):
        shifted = [np.roll(each, 7 * number, axis=(0, 1)) for each in layers]
        pixels = 128 + 8 * np.sum(shifted, axis=0)
        path = folder / "train" / f"class_{number % _CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    options = ConversionOptions(images=ImageOptions(max_edge=0), num_workers=1)
    return convert(Source(str(folder / "train"), "train"), folder / "train", "train", options)


def _noise(random: np.random.Generator, height: int, width: int, edge: int) -> np.ndarray:
    """Return noise whose shapes are `edge` pixels large, float32 (height, width, 3)."""
    coarse = random.normal(0, 1, (height // edge + 1, width // edge + 1, 3)).astype(np.float32)
    fine = coarse.repeat(edge, axis=0).repeat(edge, axis=1)
    return fine[:height, :width]
