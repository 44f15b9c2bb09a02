"""A look at labeled images before they are converted: counts, sizes, duplicates, broken ones."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from library.dataset.encode_record import read_image_bytes, with_remedy
from library.dataset.file_index import FileIndex
from library.dataset.images import decode_image
from library.dataset.pixels import to_gray
from library.dataset.sources.base import NO_CLASS, labels_of
from library.dataset.worker_pool import WorkerPool
from library.describing.duplicates import (
    SIGNATURE_BYTES,
    exact_hash,
    find_groups,
    perceptual_hash,
    signature,
)
from library.errors import DataError

# Enough for a hash of 9 by 9 spots.
_EDGE = 64
_BATCH = 32


@dataclass(frozen=True)
class MeasureFile:
    """The function from a location to (exact hash, perceptual hash, signature, size)."""

    options: object

    def __call__(self, location):
        """Raises UnusableImageError if the file is no image that can be used."""
        content = read_image_bytes(location)
        pixels, (width, height) = with_remedy(decode_image, content, self.options)
        gray = to_gray(pixels)
        return exact_hash(content), perceptual_hash(gray), signature(gray), (width, height)


@dataclass
class Inspection:
    """What was found. Images are numbered through all splits; `file(number)` gives one."""

    splits: dict
    # {split: {class: images that can be used}}
    counts: dict = field(default_factory=dict)
    # [(split, file, reason), …]
    unusable: list = field(default_factory=list)
    # Of each usable image: its split's and its label's number, width and height.
    facts: np.ndarray = None
    # Its number in the split's listing.
    positions: np.ndarray = None
    classes: tuple = ()
    # All labels by number: classes, or tuples of them.
    labels: tuple = ()
    equal: list = field(default_factory=list)
    alike: list = field(default_factory=list)

    def file(self, number):
        """Return the LabeledFile of an image."""
        return self.splits[self.split(number)][int(self.positions[number])]

    def split(self, number):
        """Return the name of an image's split."""
        return list(self.splits)[self.facts[number][0]]

    def crosses_splits(self, group):
        """Return whether a group has images in several splits: a leak."""
        return len(np.unique(self.facts[group, 0])) > 1

    def images(self, split):
        """Return how many images of a split can be used."""
        return int(np.sum(self.facts[:, 0] == list(self.splits).index(split)))

    def of_class(self, name):
        """Return the numbers of the images of a class."""
        labels = [number for number, each in enumerate(self.labels) if name in labels_of(each)]
        return np.flatnonzero(np.isin(self.facts[:, 1], labels))

    def labels_disagree(self, group):
        """Return whether a group has images of different labels."""
        return len(np.unique(self.facts[group, 1])) > 1


@contextlib.contextmanager
def inspect_splits(finds, options, num_workers):
    """Return the Inspection of {split: function that yields its LabeledFiles}."""
    options = replace(options, max_edge=_EDGE, color_space="gray")
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(WorkerPool(MeasureFile(options), num_workers))
        workers.grow(num_workers)
        splits = {}
        for split, find in finds.items():
            splits[split] = FileIndex(find())
            stack.callback(splits[split].close)
        if not any(map(len, splits.values())):
            raise DataError("there are no images to inspect")
        if any(listing.is_streamed for listing in splits.values()):
            raise DataError("a compressed tar can't be inspected: unpack it, or make it a zip")
        yield _measured(splits, workers)


def _measured(splits, workers):
    inspection = Inspection(splits)
    labels = sorted({label for listing in splits.values() for label in listing.counts} - {NO_CLASS})
    inspection.classes = tuple(labels)
    # Combinations of classes are numbered as they are found.
    numbers = {}
    # All that is kept of an image: 112 bytes.
    total = sum(map(len, splits.values()))
    facts, positions = np.zeros((total, 4), np.int32), np.zeros(total, np.int64)
    exact, perceptual = np.zeros(total, np.uint64), np.zeros((total, 2), np.uint64)
    signatures = np.zeros((total, SIGNATURE_BYTES), np.int8)
    usable = 0
    for split_number, (split, listing) in enumerate(splits.items()):
        counts = inspection.counts[split] = Counter(dict.fromkeys(labels, 0))
        bar = tqdm(total=len(listing), unit=" images", desc=split)
        results = (each for _, batch in workers.map(_batches(listing)) for each in batch)
        for position, (is_usable, result) in enumerate(results):
            file = listing[position]
            bar.update()
            if not is_usable:
                inspection.unusable.append((split, file.name, result))
                continue
            counts.update(file.labels)
            label = numbers.setdefault(file.label, len(numbers))
            exact[usable], perceptual[usable], shades, size = result
            signatures[usable] = np.frombuffer(shades, np.int8)
            facts[usable] = (split_number, label, *size)
            positions[usable] = position
            usable += 1
        bar.close()
    inspection.labels = tuple(numbers)
    inspection.facts, inspection.positions = facts[:usable], positions[:usable]
    inspection.equal, inspection.alike = find_groups(
        exact[:usable], perceptual[:usable], signatures[:usable]
    )
    return inspection


def _batches(listing):
    for first in range(0, len(listing), _BATCH):
        yield [listing[n].location for n in range(first, min(first + _BATCH, len(listing)))]
