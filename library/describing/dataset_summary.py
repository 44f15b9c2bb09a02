"""Summarize labeled images before conversion: counts, sizes, duplicates, unusable files."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from library.dataset.conversion import Source
from library.dataset.duplicates import (
    SIGNATURE_BYTES,
    exact_hash,
    find_groups,
    perceptual_hash,
    signature,
)
from library.dataset.encode_record import read_image_bytes
from library.dataset.file_index import FileIndex
from library.dataset.images import ImageOptions, decode_image
from library.dataset.locations import Location, prefetch
from library.dataset.pixels import to_gray
from library.dataset.sources.base import NO_CLASS, LabeledFile, labels_of
from library.dataset.worker_pool import WorkerPool
from library.errors import DataError, printable
from library.logging import progress_bar

# Enough for a perceptual hash.
_EDGE = 64
_BATCH = 32
_MAX_ROWS = 10
_MAX_NAMES = 6
_EDGES = (32, 64, 128, 256, 384, 512, 1024, 2048, 4096)
_ASPECTS = (0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class MeasureFile:
    """Hash and measure one file; picklable, for worker processes."""

    options: ImageOptions

    def __call__(
        self, location: Location
    ) -> tuple[int, tuple[int, int], bytes, tuple[int, int], list[str]]:
        """Return (exact hash, perceptual hash, signature, size, what is odd about the image).

        Raises UnusableImageError.
        """
        content = read_image_bytes(location)
        notes: list[str] = []
        pixels, size = decode_image(content, self.options, notes)
        gray = to_gray(pixels)
        return exact_hash(content), perceptual_hash(gray), signature(gray), size, notes

    prefetch = staticmethod(prefetch)


@dataclass(frozen=True)
class Inspection:
    """What was found. Usable images are numbered through all splits, from 0.

    Attributes:
        splits: The files of each split.
        classes: All classes, sorted.
        counts: {split: {class: usable images}}.
        unusable: (split, file, reason) of each file that can't be used.
        noted: (split, file, what is odd about it) of files that can be used.
        labels: Every label that occurs: a class, or a tuple of classes.
        facts: Per image: number of its split, number of its label, width, height; int32 (n, 4).
        positions: Per image: its position in the split's index.
        equal: Groups of images that are the same file.
        alike: Groups of images that look alike.
    """

    splits: dict[str, FileIndex]
    classes: tuple[str, ...]
    counts: dict[str, Counter[str]]
    unusable: list[tuple[str, str, str]]
    noted: list[tuple[str, str, str]]
    labels: tuple[str | tuple[str, ...], ...]
    facts: np.ndarray
    positions: np.ndarray
    equal: list[np.ndarray]
    alike: list[np.ndarray]

    def file(self, number: int) -> LabeledFile:
        """Return the file of an image."""
        return self.splits[self.split(number)][int(self.positions[number])]

    def split(self, number: int) -> str:
        """Return the name of an image's split."""
        return list(self.splits)[self.facts[number][0]]

    def images(self, split: str) -> int:
        """Return the number of usable images of a split."""
        return int(np.sum(self.facts[:, 0] == list(self.splits).index(split)))

    def of_class(self, name: str) -> np.ndarray:
        """Return the numbers of the images of a class."""
        labels = [number for number, each in enumerate(self.labels) if name in labels_of(each)]
        return np.flatnonzero(np.isin(self.facts[:, 1], labels))

    def crosses_splits(self, group: np.ndarray) -> bool:
        """Return whether a group has images of several splits: a leak."""
        return len(np.unique(self.facts[group, 0])) > 1

    def labels_disagree(self, group: np.ndarray) -> bool:
        """Return whether a group has images of different labels."""
        return len(np.unique(self.facts[group, 1])) > 1


@contextlib.contextmanager
def inspect_splits(
    sources: Mapping[str, Source], options: ImageOptions, num_workers: int
) -> Iterator[Inspection]:
    """Yield the Inspection of splits, which can read their files inside the block.

    Args:
        sources: The files of each split.
        options: How a conversion would store the images.
        num_workers: Processes that decode.
    """
    options = replace(options, max_edge=_EDGE, color_space="gray")
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(WorkerPool(MeasureFile(options), num_workers))
        workers.grow(num_workers)
        splits = {}
        for split, source in sources.items():
            splits[split] = stack.enter_context(contextlib.closing(FileIndex(source.find())))
        if not any(map(len, splits.values())):
            raise DataError("there are no images to inspect")
        yield _inspect(splits, workers)


def _inspect(splits: dict[str, FileIndex], workers: WorkerPool) -> Inspection:
    classes = sorted({label for index in splits.values() for label in index.counts} - {NO_CLASS})
    counts, unusable, noted = {}, [], []
    numbers: dict[str | tuple[str, ...], int] = {}
    # The memory per image is 112 bytes.
    total = sum(map(len, splits.values()))
    facts, positions = np.zeros((total, 4), np.int32), np.zeros(total, np.int64)
    exact, perceptual = np.zeros(total, np.uint64), np.zeros((total, 2), np.uint64)
    signatures = np.zeros((total, SIGNATURE_BYTES), np.int8)
    usable = 0
    for split_number, (split, index) in enumerate(splits.items()):
        counts[split] = Counter(dict.fromkeys(classes, 0))
        results = (result for _, batch in workers.map(_batches(index)) for result in batch)
        bar = progress_bar(len(index), split, iterable=results, unit=" images")
        for position, (is_usable, result) in enumerate(bar):
            file = index[position]
            if not is_usable:
                unusable.append((split, file.name, result))
                continue
            counts[split].update(file.labels)
            label = numbers.setdefault(file.label, len(numbers))
            exact[usable], perceptual[usable], shades, size, notes = result
            noted += [(split, file.name, f"has {note}") for note in notes]
            signatures[usable] = np.frombuffer(shades, np.int8)
            facts[usable] = (split_number, label, *size)
            positions[usable] = position
            usable += 1
    equal, alike = find_groups(exact[:usable], perceptual[:usable], signatures[:usable])
    return Inspection(
        splits=splits,
        classes=tuple(classes),
        counts=counts,
        unusable=unusable,
        noted=noted,
        labels=tuple(numbers),
        facts=facts[:usable],
        positions=positions[:usable],
        equal=equal,
        alike=alike,
    )


def _batches(index: FileIndex) -> Iterator[list[Location]]:
    for first in range(0, len(index), _BATCH):
        yield [index[n].location for n in range(first, min(first + _BATCH, len(index)))]


def format_summary(inspection: Inspection) -> str:
    """Return all findings as lines of text."""
    lines = [*_count_lines(inspection), ""]
    lines += _histogram_lines("longer edge", size_histogram(inspection))
    lines += _histogram_lines("width : height", aspect_histogram(inspection))
    for heading, groups in duplicate_lists(inspection):
        lines.append(f"{heading}: {len(groups):,}")
        lines += [f"  {_group_line(inspection, group)}" for group in groups[:_MAX_ROWS]]
        if len(groups) > _MAX_ROWS:
            lines.append(f"  … and {len(groups) - _MAX_ROWS:,} more")
    for heading, rows in file_lists(inspection):
        lines.append(f"{heading}: {len(rows):,}")
        for split, name, reason in rows[:_MAX_ROWS]:
            lines.append(f"  {printable(f'{split}/{name}')} {printable(reason)}")
    return "\n".join(lines)


def file_lists(inspection: Inspection) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return (heading, [(split, file, what is wrong)])."""
    lists = [("unusable files", inspection.unusable)]
    if inspection.noted:
        lists.append(("files that are nearly black unless scaled first", inspection.noted))
    return lists


def duplicate_lists(inspection: Inspection) -> list[tuple[str, list[np.ndarray]]]:
    """Return (heading, groups), worst first; each group is in the first list that applies."""
    headings = (
        "same file in several splits (leak)",
        "same file with different labels",
        "same file twice",
        "similar images in several splits (possible leak)",
        "similar images with different labels",
        "similar images",
    )
    lists: dict[str, list[np.ndarray]] = {heading: [] for heading in headings}
    for first, groups in ((0, inspection.equal), (3, inspection.alike)):
        for group in groups:
            crosses, disagrees = inspection.crosses_splits(group), inspection.labels_disagree(group)
            lists[headings[first + (0 if crosses else 1 if disagrees else 2)]].append(group)
    return list(lists.items())


def imbalance(counts: Mapping[str, int]) -> str:
    """Return how much larger the largest class is than the smallest, in words."""
    largest, most = max(counts.items(), key=lambda item: item[1])
    smallest, least = min(counts.items(), key=lambda item: item[1])
    if least == 0:
        return f"{printable(smallest)!r} has no images"
    if most == least:
        return "all classes are equally large"
    return f"{printable(largest)!r} is {most / least:.1f} times as large as {printable(smallest)!r}"


def size_histogram(inspection: Inspection) -> list[tuple[str, int]]:
    """Return (range of the longer edge, images)."""
    return _histogram(inspection.facts[:, 2:4].max(axis=1, initial=0), _EDGES, " px")


def aspect_histogram(inspection: Inspection) -> list[tuple[str, int]]:
    """Return (range of width over height, images)."""
    width, height = inspection.facts[:, 2], inspection.facts[:, 3]
    return _histogram(width / np.maximum(height, 1), _ASPECTS, "")


def _histogram(values: np.ndarray, edges: Sequence[float], unit: str) -> list[tuple[str, int]]:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    names = [f"up to {edge:g}{unit}" for edge in edges] + [f"above {edges[-1]:g}{unit}"]
    rows = list(zip(names, counts.tolist(), strict=True))
    # From the first bin that has any images to the last.
    filled = np.flatnonzero(counts)
    return rows[filled[0] : filled[-1] + 1] if len(filled) else []


def _group_line(inspection: Inspection, group: np.ndarray) -> str:
    names = [f"{inspection.split(n)}/{inspection.file(n).name}" for n in group[:_MAX_NAMES]]
    more = f" = … ({len(group)} in all)" if len(group) > _MAX_NAMES else ""
    return " = ".join(map(printable, names)) + more


def _count_lines(inspection: Inspection) -> Iterator[str]:
    splits = list(inspection.counts)
    width = max(map(len, (*map(printable, inspection.classes), "images")))
    rows = [("", splits)]
    for label in inspection.classes:
        numbers = [f"{inspection.counts[split][label]:,}" for split in splits]
        rows.append((printable(label), numbers))
    rows.append(("images", [f"{inspection.images(split):,}" for split in splits]))
    for name, cells in rows:
        yield " ".join([f"{name:<{width}}", *(f"{cell:>10}" for cell in cells)])
    for split in splits:
        yield f"{split}: {imbalance(inspection.counts[split])}"


def _histogram_lines(heading: str, rows: Sequence[tuple[str, int]]) -> Iterator[str]:
    most = max((count for _, count in rows), default=1)
    yield heading
    for words, count in rows:
        yield f"  {words:<14} {count:>9,}  {'█' * round(40 * count / most)}"
