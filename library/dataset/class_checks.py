"""Data from which nothing can be learned: splits taken for classes, one class, images of none."""

import logging
import posixpath
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from library.dataset.file_index import FileIndex
from library.dataset.sources.base import NO_CLASS, TRAINING, composed, split_meant
from library.dataset.sources.class_names import normalize_class
from library.dataset.sources.find import is_records
from library.dataset.storage import is_remote
from library.errors import DataError, printable
from library.messages import counted, counted_present, listed

# Files whose folders are looked at to explain why there is one class.
_MAX_EXPLAINED = 10_000

logger = logging.getLogger(__name__)


def check_labels(index: FileIndex, source: object) -> None:
    """Raise DataError if the files have no classes, or if their classes are in fact splits."""
    labels = set(index.counts)
    if not labels and len(index):
        raise DataError(f"no image of {source} has a class: all labels are empty")
    if not labels:
        raise DataError(f"{source} has no images; {_where_images_go(str(source))}")
    if labels == {NO_CLASS}:
        raise DataError(f"{source}: the images have no class; put them at <class>/<image>")
    splits = {label: split for label in sorted(labels) if (split := split_meant(label))}
    # Beside training data and test data there may be more, such as images to predict.
    is_sure = TRAINING in splits.values() or len(splits) == len(labels - {NO_CLASS})
    if is_sure and len(set(splits.values())) > 1:
        raise DataError(
            f"{source} has splits, not classes ({listed(splits)}); {_one_split(source, splits)}"
        )


def check_several_classes(index: FileIndex, source: object, split: str) -> None:
    """Raise DataError, which explains why, if all files have one and the same class.

    Args:
        index: The files.
        source: What to call them.
        split: The split's name.
    """
    classes = sorted(set(index.counts) - {NO_CLASS})
    if len(classes) > 1 or index.counts[classes[0]] < len(index) - index.counts[NO_CLASS]:
        return
    advice = _explain_one_class(index, source, classes[0])
    if split != TRAINING:
        advice += "; or fix the classes with --classes_from, the training split's manifest"
    raise DataError(f"{source} has one class, {classes[0]!r}: {advice}")


def check_trainable(split: Any) -> None:
    """Raise DataError if a training split has one class, or a name that can't be saved."""
    for name in split.classes:
        try:
            normalize_class(name)
        except DataError as error:
            raise DataError(f"{split.name}: {error}, and convert again") from None
    # Of multi-label data, one class is a question, if some images lack it.
    if len(split.classes) == 1 and split.class_counts[0] == split.examples:
        raise DataError(
            f"all images of {split.name} have one class, {split.classes[0]!r}: nothing to learn"
        )


def log_lacking_classes(splits: Sequence[Any]) -> None:
    """Log which splits have no images of some classes."""
    for split in splits:
        if 0 in split.class_counts:
            counts = dict(zip(split.classes, split.class_counts, strict=True))
            images = counted(split.examples, "image")
            logger.warning(f"{split.name} holds {images} of {counted_present(counts)}")


def _where_images_go(source: str) -> str:
    """Return the advice to put images into a source, or to name the TFRecord files in it."""
    if not is_remote(source):
        if is_records(source):
            return "its TFRecord files have no records"
        pattern = f"{source}/*"
        if Path(source).is_dir() and is_records(pattern):
            return f"name the TFRecord files in it, such as '{pattern}'"
    return f"put them at {source}/<class>/<image>"


def _one_split(source: object, splits: Iterable[str]) -> str:
    """Return the advice to convert the training split, if there is one, or another, alone."""
    first = min(splits, key=lambda each: (split_meant(each) != TRAINING, each))
    name = split_meant(first)
    return f"convert each, such as --dataset_dir {source}/{first} --tfrecord_filename {name}"


def _explain_one_class(index: FileIndex, source: object, label: str) -> str:
    """Return what most probably happened, and what to do."""
    files = (index[number] for number in range(len(index)))
    names = [each.name for each in islice(files, _MAX_EXPLAINED) if each.label != NO_CLASS]
    # In a CSV file, a path says nothing about the class.
    if all(_first_folder(each) == label for each in names):
        folders = {posixpath.dirname(each) for each in names}
        around = posixpath.commonpath(folders)
        inner = sorted({each[len(around) + 1 :].split("/")[0] for each in folders})
        if splits := [each for each in inner if split_meant(each)]:
            around = printable(around)
            advice = _one_split(f"{source}/{around}", splits)
            return f"the folder {around} is around splits ({listed(splits)}); {advice}"
        if len(inner) > 1 and "" not in inner:
            around = printable(around)
            found = f"the folder {around} is around {listed(inner)}"
            return f"{found}; if these are the classes, --dataset_dir {source}/{around}"
    return "there is nothing to learn from it; each class needs images, and a folder of its own"


def _first_folder(name: str) -> str:
    return composed(name.split("/")[0]).strip()
