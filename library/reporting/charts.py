"""Images and numbers behind the report's figures: thumbnails, confusion matrix, mistakes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from library.evaluation.confusion import confusion_cells
from library.evaluation.predictions import Predictions
from library.figures.html import data_url

_THUMBNAIL_EDGE_PIXELS = 128
# Up to here the confusion matrix is a table of counts.
_MAX_TABLE_CLASSES = 30
# Up to here it is an image; with more classes a screen could not show its cells.
_MAX_IMAGE_CLASSES = 1000
_MAX_PAIRS = 12


@dataclass(frozen=True)
class Thumbnail:
    """An image as a data: URL, and whether the browser should enlarge it pixel by pixel."""

    url: str
    is_pixelated: bool


def make_thumbnail(pixels: np.ndarray) -> Thumbnail:
    """Return a thumbnail of uint8 pixels (height, width, 1 or 3).

    Small images keep every pixel; large ones are shrunk to 128 pixels.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if max(image.size) <= _THUMBNAIL_EDGE_PIXELS / 2:
        return Thumbnail(_png_url(image), is_pixelated=True)
    image.thumbnail((_THUMBNAIL_EDGE_PIXELS, _THUMBNAIL_EDGE_PIXELS), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return Thumbnail(data_url(content.getvalue(), "image/jpeg"), is_pixelated=False)


@dataclass(frozen=True)
class ConfusionChart:
    """A confusion matrix as the report shows it: counts, or an image, or neither, and pairs.

    Attributes:
        matrix: Images by true class (row) and predicted class (column); None for many classes.
        image_url: The same as an image, if the classes are too many for a table.
        pairs: (true class, predicted class, images, share of the true class's images), the most
            first.
    """

    matrix: list[list[int]] | None
    image_url: str | None
    pairs: list[tuple[str, str, str, str]]


def make_confusion_chart(predictions: Predictions, classes: Sequence[str]) -> ConfusionChart:
    """Return the confusion matrix of single-label predictions, and the most confused classes."""
    cells = confusion_cells(predictions.labels, predictions.classes, len(classes))
    matrix = image_url = None
    if len(classes) <= _MAX_IMAGE_CLASSES:
        counts = np.zeros((len(classes), len(classes)), np.int64)
        counts[cells[:, 0], cells[:, 1]] = cells[:, 2]
        if len(classes) <= _MAX_TABLE_CLASSES:
            matrix = counts.tolist()
        else:
            image_url = _png_url(draw_confusion_matrix(counts))
    pairs = [
        (classes[true], classes[predicted], f"{images:,}", f"{100 * share:.1f} %")
        for true, predicted, images, share in confused_pairs(cells)[:_MAX_PAIRS]
    ]
    return ConfusionChart(matrix, image_url, pairs)


def confused_pairs(cells: np.ndarray) -> list[tuple[int, int, int, float]]:
    """Return (true, predicted, images, share of the true class's images), the most images first.

    Takes the cells of a confusion matrix, int (cells, 3), as from confusion_cells.
    """
    totals = np.bincount(cells[:, 0], weights=cells[:, 2])
    wrong = cells[cells[:, 0] != cells[:, 1]]
    wrong = wrong[np.argsort(-wrong[:, 2], kind="stable")]
    return [(true, other, images, images / totals[true]) for true, other, images in wrong.tolist()]


def draw_confusion_matrix(counts: np.ndarray) -> Image.Image:
    """Return one RGBA pixel per cell: green or red, as opaque as its share of the row is large."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    pixels = np.zeros((*counts.shape, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(len(counts))[..., np.newaxis], (42, 150, 128), (214, 84, 64))
    opacity = np.where(counts > 0, 0.2 + 0.8 * np.sqrt(shares), 0.06)
    pixels[..., 3] = (255 * opacity).astype(np.uint8)
    return Image.fromarray(pixels)


def _png_url(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return data_url(content.getvalue(), "image/png")
