"""A split that a function of the user's yields: nothing of it is on disk."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from library.counted import counted
from library.dataset.classes import TRAINING
from library.dataset.images import UnusableImageError
from library.dataset.unconverted import check_labels, check_pixels, make_record
from library.errors import DataError


class GeneratedSplit:
    """Images that a function of the user's yields, the same ones whenever it is called.

    Calls it once, to count them. Raises DataError for what is no image, or has no class.
    """

    has_several = False
    left_out_count = 0

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
        """Give one line for the start: what converting would gain."""
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
    """Give the GeneratedSplits of `generate(name)`, in order. Raises DataError."""
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
    """Give what a value is: numbers and short texts as they are, of all else the type."""
    if isinstance(value, int | float | str) and len(repr(value)) < 40:
        return repr(value)
    many = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"{type(value).__name__}{many}"
