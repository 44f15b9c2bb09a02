"""A split that was never converted: images in folders, or in a CSV file.

For a first look, and for data that changes. Each image is made conformant as conversion would
make it, so the network sees the very same pixels; but anew in each epoch.
"""

import hashlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable

import numpy as np

from library.dataset.file_index import FileIndex
from library.dataset.images import MAX_JPEG_EDGE, ImageOptions, UnusableImageError, convert_image
from library.dataset.pixels import encode_jpeg
from library.dataset.read_bytes import read_content
from library.dataset.records import Record
from library.dataset.sources.base import NO_CLASS
from library.dataset.sources.find import find_files
from library.dataset.splits import TRAINING
from library.errors import DataError, printable
from library.messages import counted

_TIMED_IMAGES = 16
# Conversion also shrinks to 384 pixels; here that would cost more than it spares.
_OPTIONS = ImageOptions(max_edge=0)


class UnconvertedSplit:
    """Labeled files, any of which can be read at any time. Raises DataError if one is missing."""

    def __init__(self, source, name, classes, listing):
        self.source = source
        self.name = name
        self.classes = classes
        # Whether an image may have several classes, or none.
        self.is_multi_label = listing.is_multi_label
        # A listing is one open file: two threads must not seek in it at once.
        self._lock = threading.Lock()
        self._listing = listing
        self._ids = {each: number for number, each in enumerate(classes)}
        numbers, labels, missing = [], [], []
        for number in range(len(listing)):
            file = listing[number]
            if file.label == NO_CLASS:
                continue
            if file.place[0] == "none":
                missing.append(file)
            numbers.append(number)
            labels.append(-1 if self.is_multi_label else self._ids[file.label])
        _check_found(missing, source)
        # Position in the listing of each file that has a label.
        self._numbers = np.array(numbers, np.int64)
        # Class id of each, where images have one.
        self.labels = None if self.is_multi_label else np.array(labels, np.int64)
        self.class_counts = tuple(listing.counts[each] for each in classes)
        self.rejected_count = len(listing) - len(numbers)

    @property
    def examples(self):
        """How many images there are."""
        return len(self._numbers)

    @property
    def bytes(self):
        """The size of all files."""
        return self._listing.bytes

    @property
    def fingerprint(self):
        """A hash that changes whenever a file, its size, its time or its class does."""
        content = f"{self.classes} {self._listing.fingerprint}"
        return hashlib.sha256(content.encode()).hexdigest()

    def filename(self, number):
        """Return the name of an image, numbered from 0, as bytes: names need not be UTF-8."""
        with self._lock:
            return self._listing[int(self._numbers[number])].name.encode("utf-8", "surrogateescape")

    def read(self, number):
        """Return the Record of an image, numbered from 0. Raises DataError."""
        with self._lock:
            file = self._listing[int(self._numbers[number])]
        try:
            content = read_content(file.place)
            return make_record(content, file.label, self._label(file), file.name)
        except (OSError, ValueError, UnusableImageError) as error:
            raise DataError(
                f"{self.source}/{printable(file.name)} {error}; converting would leave it out, "
                "by name: convert_dataset.py"
            ) from None

    def _label(self, file):
        if self.is_multi_label:
            return tuple(self._ids[each] for each in file.label)
        return self._ids[file.label]

    def describe(self):
        """Return one line for the start: what converting would gain."""
        timed = min(_TIMED_IMAGES, self.examples)
        start = time.perf_counter()
        for number in range(timed):
            self.read(number)
        seconds = (time.perf_counter() - start) / timed
        return (
            f"{self.source} is not converted: finding, reading and checking an image takes "
            f"{1000 * seconds:.2g} ms, {seconds * self.examples:,.1f} s an epoch, which shards "
            "would spare (convert_dataset.py)"
        )


def read_unconverted(data_dir, names, data_format, columns=(), label_separator=""):
    """Return the UnconvertedSplits `<data_dir>/<name>`, in order. Raises DataError.

    `data_dir` is a folder of class folders or, for the format csv, a CSV file, either of them local
    or a URL; or an archive. `columns` and `label_separator` are for CSV files: see `find_files`.
    """
    data_dir = str(data_dir).rstrip("/")
    if data_format == "csv" and not data_dir.lower().endswith(".csv"):
        raise DataError(f"data_format csv wants data_dir to be a CSV file, not {data_dir}")
    given = {"columns": columns, "label_separator": label_separator}
    listings = {
        name: _list_files(f"{data_dir}/{name}", given) for name in dict.fromkeys((TRAINING, *names))
    }
    # Fixed by the training split, whichever is read.
    classes = tuple(sorted(listings[TRAINING].counts.keys() - {NO_CLASS}))
    for name, listing in listings.items():
        check_labels(listing.counts.keys() - {NO_CLASS}, classes, f"{data_dir}/{name}")
        if listing.is_streamed:
            raise DataError(
                f"{data_dir} can only be read from front to back: unpack it, or convert it"
            )
    return [UnconvertedSplit(f"{data_dir}/{name}", name, classes, listings[name]) for name in names]


def make_record(content, text, label, filename):
    """Return a Record of a file's bytes or of uint8 pixels (height, width, 1 or 3)."""
    if isinstance(content, np.ndarray):
        content = _encode_pixels(content)
    encoded, height, width = convert_image(content, _OPTIONS)
    return Record(encoded, height, width, label, text, filename)


def _list_files(source, given):
    listing = FileIndex(find_files(source, **given))
    # Whoever reads from it decides how long it is needed.
    weakref.finalize(listing, listing.file.close)
    return listing


def _check_found(missing, source):
    if missing:
        name, reason = missing[0].name, missing[0].place[1]
        more = f", and {len(missing) - 1:,} more like it" if len(missing) > 1 else ""
        raise DataError(
            f"{source}/{printable(name)}: {reason}{more}; converting would leave out what can't be "
            "read, by name: convert_dataset.py"
        )


def check_pixels(pixels):
    """Raise ValueError for an array that is no image. Its text goes on after the image's name."""
    is_shape = pixels.ndim == 3 and pixels.shape[2] in (1, 3)
    if pixels.dtype != np.uint8 or not is_shape:
        raise ValueError(
            f"is {pixels.dtype} {pixels.shape}; pixels are uint8 (height, width, 1 or 3)"
        )
    if not 0 < min(pixels.shape[:2]) <= max(pixels.shape[:2]) <= MAX_JPEG_EDGE:
        raise ValueError(f"is {pixels.shape}; an edge has from 1 to {MAX_JPEG_EDGE:,} pixels")


def _encode_pixels(pixels):
    check_pixels(pixels)
    color = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    # At full resolution of color: what is generated is often small.
    return encode_jpeg(np.ascontiguousarray(color), 95, has_full_color=True)


def check_labels(labels, classes, where):
    """Raise DataError unless the labels found are some of the classes, and there are any."""
    if not labels:
        raise DataError(f"{where} holds no images of any class")
    if unknown := sorted(set(labels) - set(classes)):
        raise DataError(
            f"{where} has the class {unknown[0]!r}, which the training split lacks "
            f"(it has: {', '.join(classes[:10])}{', …' if len(classes) > 10 else ''})"
        )


class GeneratedSplit:
    """Images that a function of the user's yields, the same ones whenever it is called.

    Calls it once, to count them. Raises DataError for what is no image, or has no class.
    """

    is_multi_label = False
    rejected_count = 0

    def __init__(self, generate, name, classes=None):
        self._generate = generate
        self.name = name
        self.source = f"the generator's split {name}"
        counts, sizes = Counter(), []
        for number, (content, label) in enumerate(self._images()):
            counts[label] += 1
            # Only 0, 1, 2, 4, 8, …: to encode an image may take longer than to generate it.
            if number & (number - 1) == 0:
                sizes.append(len(self._record(number, content, label, 0).encoded))
        self.classes = classes or tuple(sorted(counts))
        check_labels(counts, self.classes, self.source)
        self.class_counts = tuple(counts[each] for each in self.classes)
        self.examples = sum(counts.values())
        # Of a record, about.
        self.mean_bytes = sum(sizes) // len(sizes)

    @property
    def fingerprint(self):
        """None: who can tell what a generator will yield?"""
        return None

    def records(self):
        """Yield the Record of each image. Raises DataError, also where there are more or fewer."""
        ids = {each: number for number, each in enumerate(self.classes)}
        for number, (content, label) in enumerate(self._as_many()):
            if label not in ids:
                raise DataError(
                    f"image {number} of {self.source} has the class {label!r}, which none had when "
                    "they were counted: it must yield the same each time"
                )
            yield self._record(number, content, label, ids[label])

    def describe(self):
        """Return one line for the start: what converting would gain."""
        return (
            f"the split {self.name} comes from a generator: it was run once to count its "
            f"{self.examples:,} images, and runs again in each epoch; written as files and "
            "converted, they would be read faster, and a run could go on without generating again"
        )

    def _images(self):
        """Yield (image, label), of which the kinds are checked, but not what is in bytes."""
        images = self._generate(self.name)
        if not isinstance(images, Iterable):
            raise DataError(f"{self.source} is {images!r}: it must yield (image, class name)")
        for number, image in enumerate(images):
            try:
                _check_image(image)
            except ValueError as error:
                raise DataError(f"image {number} of {self.source} {error}") from None
            yield image

    def _as_many(self):
        """Yield what `_images` does. Raises DataError unless there are as many as were counted."""
        count, last = 0, None
        for image in self._images():
            count += 1
            if count > self.examples:
                break
            # One behind: whoever has got the last one may never ask whether more would come.
            if count > 1:
                yield last
            last = image
        if count != self.examples:
            now = "more" if count > self.examples else f"only {count:,}"
            raise DataError(
                f"{self.source} yielded {counted(self.examples, 'image')} when they were counted, "
                f"and now {now}: it must yield the same each time"
            )
        yield last

    def _record(self, number, content, text, label):
        try:
            return make_record(content, text, label, f"image {number}")
        except (ValueError, UnusableImageError) as error:
            raise DataError(f"image {number} of {self.source} {error}") from None


def read_generated(generate, names):
    """Return the GeneratedSplits of `generate(name)`, in order. Raises DataError."""
    training = GeneratedSplit(generate, TRAINING)
    rest = {
        name: GeneratedSplit(generate, name, training.classes) for name in {*names} - {TRAINING}
    }
    return [training if name == TRAINING else rest[name] for name in names]


def _check_image(image):
    if not isinstance(image, tuple | list) or len(image) != 2:
        raise ValueError(f"is {_kind(image)}; it must be a pair: (image, class name)")
    content, label = image
    if not isinstance(label, str) or not label:
        raise ValueError(f"has {_kind(label)} as its label; a label is the name of a class, a str")
    if isinstance(content, np.ndarray):
        check_pixels(content)
    elif not isinstance(content, bytes):
        raise ValueError(
            f"is {_kind(content)}; an image is a numpy array of uint8 pixels, or a file's bytes"
        )


def _kind(value):
    """Return what a value is: numbers and short texts as they are, of all else the type."""
    if isinstance(value, int | float | str) and len(repr(value)) < 40:
        return repr(value)
    many = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"{type(value).__name__}{many}"
