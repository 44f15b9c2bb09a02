"""Splits that were never converted: labeled files, or images from a generator.

For a first look, and for data that changes. Each image is made conformant as conversion makes it,
so a network sees the same pixels, but this is repeated in each epoch.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from library.dataset.class_checks import check_labels, check_several_classes
from library.dataset.encode_record import read_image_bytes
from library.dataset.file_index import FileIndex
from library.dataset.images import UnusableImageError, convert_image
from library.dataset.locations import NoLocation
from library.dataset.options import MAX_JPEG_EDGE, ImageOptions
from library.dataset.pixels import encode_jpeg
from library.dataset.records import Record
from library.dataset.sources.base import NO_CLASS, TRAINING, LabeledFile, is_table, label_id
from library.dataset.sources.class_names import normalize_class
from library.dataset.sources.find import DEFAULT_OPTIONS, SourceOptions, find_files, split_folder
from library.dataset.splits import CODE_POINT, sort_classes
from library.errors import DataError, printable
from library.messages import counted, listed

_QUALITY = 95
# Conversion also shrinks to 384 pixels; here that would cost more time than it saves.
UNCONVERTED = ImageOptions(max_edge=0)
SKIPPED_BY_CONVERSION = "convert_dataset.py would skip and list it"

# Returns the (image, class name) pairs of a split: pixels (uint8, height, width, 1 or 3 channels)
# or a file's bytes.
Generator = Callable[[str], Iterable[tuple[np.ndarray | bytes, str]]]


class UnconvertedSplit:
    """Labeled files, any of which can be read at any time.

    Attributes:
        source: Where the files are.
        name: Name of the split.
        classes: In the order of their ids.
        class_counts: Images per class, in the same order.
        labels: Class id of each image, int64; None for multi-label data.
        is_multi_label: Whether an image may have several classes, or none.
        rejected_count: Number of files without a class.
    """

    def __init__(self, source: str, name: str, classes: tuple[str, ...], index: FileIndex) -> None:
        self.source = source
        self.name = name
        self.classes = classes
        self.is_multi_label = index.is_multi_label
        # An index is one open file: two threads must not seek in it at once.
        self._lock = threading.Lock()
        self._index = index
        self._ids = {each: number for number, each in enumerate(classes)}
        numbers, labels, missing = [], [], []
        for number in range(len(index)):
            file = index[number]
            if file.label == NO_CLASS:
                continue
            if isinstance(file.location, NoLocation):
                missing.append((file.name, file.location.reason))
            numbers.append(number)
            labels.append(-1 if isinstance(file.label, tuple) else self._ids[file.label])
        if missing:
            more = f", and {len(missing) - 1:,} more files" if len(missing) > 1 else ""
            name, reason = missing[0]
            raise DataError(f"{source}/{printable(name)}: {reason}{more}; {SKIPPED_BY_CONVERSION}")
        # Number in the index of each image.
        self._numbers = np.array(numbers, np.int64)
        self.labels = None if self.is_multi_label else np.array(labels, np.int64)
        self.class_counts = tuple(index.counts[each] for each in classes)
        self.rejected_count = len(index) - len(numbers)

    @property
    def examples(self) -> int:
        """Number of images."""
        return len(self._numbers)

    @property
    def mean_bytes(self) -> int:
        """Mean size of a file."""
        return max(1, self._index.bytes // self.examples)

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever a file, its size, its time or its class does."""
        content = f"{self.classes} {self._index.fingerprint}"
        return hashlib.sha256(content.encode()).hexdigest()

    def filename(self, number: int) -> bytes:
        """Return the name of an image, numbered from 0, as bytes: names need not be UTF-8."""
        return self._file(number).name.encode("utf-8", "surrogateescape")

    def read(self, number: int) -> Record:
        """Return the record of an image, numbered from 0. Raise DataError if it is unusable."""
        file = self._file(number)
        try:
            content = read_image_bytes(file.location)
            return make_record(content, file.label, label_id(file.label, self._ids), file.name)
        except UnusableImageError as error:
            raise DataError(
                f"{self.source}/{printable(file.name)} {error}; {SKIPPED_BY_CONVERSION}"
            ) from None

    def describe(self) -> str:
        """Return one line about what conversion would save."""
        return (
            f"{self.source} is not converted, so images are searched, read and checked again in "
            "each run; convert_dataset.py would save that"
        )

    def _file(self, number: int) -> LabeledFile:
        with self._lock:
            return self._index[int(self._numbers[number])]


def read_unconverted(
    data_dir: str | Path,
    names: Sequence[str],
    data_format: str,
    options: SourceOptions = DEFAULT_OPTIONS,
    class_order: str = CODE_POINT,
) -> list[UnconvertedSplit]:
    """Return the splits `<data_dir>/<name>`, with the classes of the training split.

    A folder may have another usual name of the split, as `val` has.

    Args:
        data_dir: A folder of class folders or a CSV file, local or at a URL; or an archive.
        names: Names of the splits, in the order wanted.
        data_format: "folder" or "csv".
        options: How to look for files.
        class_order: How `sort_classes` sorts the classes of the training split.

    Raises:
        DataError: A split is missing or empty, has a class that training lacks, or has files that
            can't be read.
    """
    data_dir = str(data_dir).rstrip("/")
    if data_format == "csv" and not is_table(Path(data_dir)):
        raise DataError(f"data_format csv needs a CSV file as data_dir, not {data_dir}")
    folders = {name: split_folder(data_dir, name) for name in (TRAINING, *names)}
    indexes = {name: FileIndex(find_files(each, options)) for name, each in folders.items()}
    check_labels(indexes[TRAINING], folders[TRAINING])
    check_several_classes(indexes[TRAINING], folders[TRAINING], TRAINING)
    classes = sort_classes(indexes[TRAINING].counts.keys() - {NO_CLASS}, class_order)
    for name, index in indexes.items():
        check_known_classes(index.counts.keys() - {NO_CLASS}, classes, folders[name])
    return [UnconvertedSplit(folders[name], name, classes, indexes[name]) for name in names]


class GeneratedSplit:
    """Images that a generator function yields, the same whenever it is called.

    The function is called once to count its images.

    Attributes:
        name: Name of the split.
        source: What to call the split in a message.
        classes: In the order of their ids.
        class_counts: Images per class, in the same order.
        examples: Number of images.
        mean_bytes: Size of an encoded image, estimated.
    """

    is_multi_label = False
    rejected_count = 0
    # Nobody knows what a generator will yield.
    fingerprint = None

    def __init__(
        self,
        generate: Generator,
        name: str,
        classes: tuple[str, ...] | None = None,
        class_order: str = CODE_POINT,
    ) -> None:
        """Count the images. Raise DataError for one that is not an image, or has no class.

        Args:
            generate: The generator function.
            name: Name of the split, its argument.
            classes: Classes of the training split; None: those that are found, sorted.
            class_order: How `sort_classes` sorts them.
        """
        self._generate = generate
        self.name = name
        self.source = f"the generator's split {name}"
        counts: Counter[str] = Counter()
        sizes = []
        for number, (content, label) in enumerate(self._images()):
            counts[label] += 1
            # Only 0, 1, 2, 4, 8, …: encoding may take longer than generating.
            if number & (number - 1) == 0:
                sizes.append(len(self._record(number, content, label, 0).encoded))
        self.classes = classes or sort_classes(counts, class_order)
        check_known_classes(counts, self.classes, self.source)
        self.class_counts = tuple(counts[each] for each in self.classes)
        self.examples = counts.total()
        self.mean_bytes = sum(sizes) // len(sizes)

    def records(self) -> Iterator[Record]:
        """Yield the record of each image. Raise DataError if they are others than were counted."""
        ids = {each: number for number, each in enumerate(self.classes)}
        images, count = self._images(), 0
        for count, (content, label) in enumerate(images, start=1):
            if label not in ids:
                raise self._changed(f"the class {label!r}")
            # Before the last one: whoever has it may never ask for another.
            if count == self.examples and next(images, None):
                raise self._changed("more images")
            yield self._record(count - 1, content, label, ids[label])
        if count < self.examples:
            raise self._changed(counted(count, "image"))

    def _changed(self, found: str) -> DataError:
        return DataError(
            f"{self.source} yields {found}, and {counted(self.examples, 'image')} when they were "
            "counted: it must yield the same each time"
        )

    def describe(self) -> str:
        """Return one line about what conversion would save."""
        return (
            f"the split {self.name} comes from a generator, which was run once to count its "
            f"{self.examples:,} images and runs again in each epoch; files would be read faster"
        )

    def _images(self) -> Iterator[tuple[np.ndarray | bytes, str]]:
        """Yield (image, label), with their types checked, but not what is in bytes."""
        images = self._generate(self.name)
        if not isinstance(images, Iterable):
            raise DataError(f"{self.source} is {images!r}: it must yield (image, class name)")
        for number, image in enumerate(images):
            try:
                _check_image(image)
            except ValueError as error:
                raise DataError(f"image {number} of {self.source} {error}") from None
            content, label = image
            yield content, normalize_class(label)

    def _record(self, number: int, content: np.ndarray | bytes, text: str, label: int) -> Record:
        try:
            return make_record(content, text, label, f"image {number}")
        except UnusableImageError as error:
            raise DataError(f"image {number} of {self.source} {error}") from None


def read_generated(
    generate: Generator, names: Sequence[str], class_order: str = CODE_POINT
) -> list[GeneratedSplit]:
    """Return the splits of a generator function, in order, with the training split's classes."""
    training = GeneratedSplit(generate, TRAINING, class_order=class_order)
    others = {
        name: GeneratedSplit(generate, name, training.classes) for name in {*names} - {TRAINING}
    }
    return [training if name == TRAINING else others[name] for name in names]


def make_record(
    content: np.ndarray | bytes,
    text: str | tuple[str, ...],
    label: int | tuple[int, ...],
    filename: str,
) -> Record:
    """Return the record of a file's bytes, or of uint8 pixels (height, width, 1 or 3)."""
    if isinstance(content, np.ndarray):
        color = np.broadcast_to(content, (*content.shape[:2], 3))
        # With the color at full resolution: generated images are often small.
        content = encode_jpeg(np.ascontiguousarray(color), _QUALITY, has_full_color=True)
    encoded, height, width = convert_image(content, UNCONVERTED)
    return Record(encoded, height, width, label, text, filename)


def check_known_classes(labels: Collection[str], classes: Sequence[str], where: str) -> None:
    """Raise DataError unless there are labels, and all are among the classes."""
    if not labels:
        raise DataError(f"{where} holds no images of any class")
    if unknown := sorted(set(labels) - set(classes)):
        raise DataError(
            f"{where} has the class {unknown[0]!r}, which the training split lacks (it has: "
            f"{listed(classes)})"
        )


def _check_image(image: Any) -> None:
    """Raise ValueError, whose text follows the image's name, unless it is (image, class name)."""
    match image:
        case (np.ndarray() | bytes() as content, str() as label):
            pass
        case _:
            parts = image[:3] if isinstance(image, tuple | list) else [image]
            raise ValueError(
                f"is {', '.join(type(each).__name__ for each in parts)}; it must be a pair: an "
                "array of uint8 pixels or a file's bytes, and the name of a class"
            )
    try:
        normalize_class(label)
    except DataError as error:
        raise ValueError(f"has a wrong label: {error}") from None
    if isinstance(content, bytes):
        return
    shape = content.shape
    is_image = content.dtype == np.uint8 and content.ndim == 3 and shape[2] in (1, 3)
    if not is_image or not 0 < min(shape) <= max(shape) <= MAX_JPEG_EDGE:
        raise ValueError(
            f"is {content.dtype} {shape}; pixels are uint8 (height, width, 1 or 3), with edges of "
            f"1 to {MAX_JPEG_EDGE:,}"
        )
