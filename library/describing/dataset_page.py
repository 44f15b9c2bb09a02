"""What an inspection of labeled images found, as one HTML page with thumbnails."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from library.dataset.images import ImageOptions, UnusableImageError, convert_image
from library.dataset.sources.base import LabeledFile
from library.describing.dataset_summary import (
    Inspection,
    aspect_histogram,
    duplicate_lists,
    file_lists,
    imbalance,
    size_histogram,
)
from library.figures.html import data_url, render

_EDGE_PIXELS = 96
# These bound the size of the page.
_MAX_CLASSES = 100
_MAX_SAMPLES = 7
_MAX_GROUPS = 30
_MAX_GROUP_IMAGES = 7


def render_dataset_page(inspection: Inspection, options: ImageOptions) -> str:
    """Return the page.

    Args:
        inspection: What was found.
        options: How images will be converted, and so are shown.
    """
    thumbnails = _Thumbnails(inspection, options)
    counts = inspection.counts
    return render(
        "library.describing",
        "dataset.html",
        classes=inspection.classes,
        splits=[
            {
                "name": split,
                "counts": counts[split],
                "images": inspection.images(split),
                "imbalance": imbalance(counts[split]),
            }
            for split in counts
        ],
        largest_class=max((max(each.values(), default=1) for each in counts.values()), default=1),
        sizes=size_histogram(inspection),
        aspects=aspect_histogram(inspection),
        samples=[
            (name, list(thumbnails.make(inspection.of_class(name)[:_MAX_SAMPLES])))
            for name in inspection.classes[:_MAX_CLASSES]
        ],
        duplicates=[
            (heading, list(map(thumbnails.make_group, groups[:_MAX_GROUPS])), len(groups))
            for heading, groups in duplicate_lists(inspection)
        ],
        file_lists={heading.capitalize(): files for heading, files in file_lists(inspection)},
    )


class _Thumbnails:
    """Converts images of an inspection to thumbnails with captions."""

    def __init__(self, inspection: Inspection, options: ImageOptions) -> None:
        self._inspection = inspection
        self._options = replace(options, max_edge=_EDGE_PIXELS, quality=80)

    def make(self, numbers: Iterable[int]) -> Iterator[dict]:
        """Yield what the template shows of each image."""
        for number in numbers:
            file, split = self._inspection.file(number), self._inspection.split(number)
            width, height = self._inspection.facts[number, 2:4]
            jpeg = self._convert(file)
            yield {
                "url": jpeg and data_url(jpeg, "image/jpeg"),
                # The browser enlarges small images, so that something can be seen.
                "is_pixelated": max(width, height) < _EDGE_PIXELS / 2,
                "caption": f"{split}/{file.name}, {width} x {height}",
            }

    def make_group(self, group: np.ndarray) -> tuple[list[dict], int]:
        """Return the first images of a group of duplicates, and how many more there are."""
        figures = list(self.make(group[:_MAX_GROUP_IMAGES]))
        return figures, len(group) - len(figures)

    def _convert(self, file: LabeledFile) -> bytes | None:
        try:
            return convert_image(file.location.read(), self._options)[0]
        except (UnusableImageError, OSError, ValueError):
            return None  # The file has changed since the inspection.
