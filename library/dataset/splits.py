"""The converted splits of a data folder, which must agree about the classes."""

import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from library.dataset.manifest import (
    SUFFIX,
    Manifest,
    manifest_path,
    read_manifest,
    read_manifest_file,
)
from library.dataset.sources.base import FIRST_FOLD, TRAINING
from library.dataset.sources.find import split_folder
from library.dataset.storage import is_remote
from library.errors import DataError, printable
from library.messages import listed

logger = logging.getLogger(__name__)

# Orders of classes.
CODE_POINT, NATURAL = "code_point", "natural"
# What people write between the classes of an image.
_SEPARATORS = "|;,+&/"


def read_splits(data_dir: str | Path, *names: str, fetch: bool = True) -> list[Manifest]:
    """Return the manifests of `<data_dir>/<name>/<name>.manifest.json`, in order.

    A folder may have another usual name of the split, as `val` has.
    Shards at a URL are downloaded first, once; the manifests are those of the local copies.

    Args:
        data_dir: The folder, or its URL.
        *names: The splits.
        fetch: Whether to download.

    Raises:
        DataError: A split is missing or empty, or splits differ in their classes, or in whether
            they are multi-label.
        UserError: Shards can't be downloaded.
    """
    data_dir = str(data_dir).rstrip("/") or "/"
    manifests = [_find_split(split_folder(data_dir, name), name) for name in names]
    # Check before the download, which may be many gigabytes.
    _check_agreement(data_dir, names, manifests)
    if fetch:
        _fetch_remote(manifests)
    return manifests


def read_split(folder: str | Path, name: str) -> Manifest:
    """Return the manifest of the split `name` in a folder or at a URL. Raise UserError."""
    manifest = _find_split(folder, name)
    _fetch_remote([manifest])
    return manifest


def find_training_manifest(folder: str | Path, name: str, first: str | None = None) -> Path | None:
    """Return the path of the manifest of the training split or of the first fold.

    None if there is none, or if the split `name` itself is one of them.

    Args:
        folder: Folder of the split `name`; the other is in it, or in one beside it.
        name: The split's name.
        first: Which of the two to look for; None: either.
    """
    names = (first,) if first else (TRAINING, FIRST_FOLD)
    if name in names:
        return None
    for each in names:
        for candidate in (Path(folder), Path(split_folder(Path(folder).parent, each))):
            path = manifest_path(candidate, each)
            if path.is_file():
                return path
    return None


def sort_classes(labels: Iterable[str], class_order: str = CODE_POINT) -> tuple[str, ...]:
    """Return the classes of a training split in the order of their ids.

    Args:
        labels: The classes found.
        class_order: CODE_POINT sorts them as text, NATURAL numbers in them by value. If both orders
            are not the same, the first one is logged.
    """
    classes = sorted(labels)
    natural = sorted(classes, key=_natural_key)
    if class_order == NATURAL:
        return tuple(natural)
    if classes != natural:
        pairs = enumerate(zip(classes, natural, strict=True))
        first = next(number for number, (one, other) in pairs if one != other)
        names = ", ".join(map(printable, classes[max(0, first - 2) : first + 3]))
        logger.warning(
            f"class names are sorted as text: …, {names}, …; --class_order {NATURAL}: by number"
        )
    return tuple(classes)


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key in which each run of digits counts as one number."""
    pieces = re.split("([0-9]+)", name)
    # Odd ones are numbers, by length first: an integer could have any number of digits.
    keys = [(len(digits), digits) for digits in (each.lstrip("0") for each in pieces[1::2])]
    texts = [(0, each) for each in pieces[::2]]
    alternating = itertools.chain.from_iterable(itertools.zip_longest(texts, keys))
    # The name itself, last, for names such as 1 and 01.
    return [*filter(None, alternating), (0, name)]


def order_classes(
    labels: Iterable[str],
    training_manifest: str | Path | None = None,
    class_order: str = CODE_POINT,
) -> tuple[str, ...]:
    """Return the classes in the order of their ids.

    Args:
        labels: The classes found.
        training_manifest: Path or URL of the manifest whose classes to use, or its folder. None:
            sort the labels.
        class_order: How `sort_classes` sorts them.

    Raises:
        DataError: A label is not among the classes of the training split.
    """
    if training_manifest is None:
        return sort_classes(labels, class_order)
    classes = read_classes(training_manifest)
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        names = listed([repr(each) for each in unknown])
        subject = f"the class {names} is" if len(unknown) == 1 else f"the classes {names} are"
        raise DataError(
            f"{subject} not among the classes of {training_manifest} ({listed(classes)}): rename "
            "or remove images, or convert the training split again"
        )
    return classes


def read_classes(manifest: str | Path) -> tuple[str, ...]:
    """Return the classes of the manifest at a path or URL, or of the training split's in a folder.

    Raises UserError.
    """
    if not is_remote(manifest) and Path(manifest).is_dir():
        manifest = Path(manifest) / f"{TRAINING}{SUFFIX}"
    return read_manifest_at(manifest).classes


def find_joined(classes: Iterable[str]) -> tuple[str, str] | None:
    """Return (class, separator) of a class whose name joins others, such as cat|dog, or None."""
    known = set(classes)
    for name in classes:
        for separator in _SEPARATORS:
            parts = name.split(separator)
            if len(parts) > 1 and known.issuperset(each.strip() for each in parts):
                return name, separator
    return None


def _find_split(folder: str | Path, name: str) -> Manifest:
    if not is_remote(folder):
        return read_manifest(folder, name)
    from library.dataset.remote_splits import find_split

    return find_split(str(folder).rstrip("/"), name)


def read_manifest_at(path: str | Path) -> Manifest:
    """Return the manifest at a path or URL without a look at its shards. Raise UserError."""
    if not is_remote(path):
        return read_manifest_file(path)
    folder, _, file = str(path).rpartition("/")
    return _find_split(folder, file.removesuffix(SUFFIX))


def _fetch_remote(manifests: Sequence[Manifest]) -> None:
    if remote := [each for each in manifests if each.origin]:
        from library.dataset.remote_splits import fetch_shards

        fetch_shards(remote)


def _check_agreement(data_dir: str, names: Sequence[str], manifests: Sequence[Manifest]) -> None:
    first = manifests[0]
    for name, manifest in zip(names, manifests, strict=True):
        if not manifest.examples:
            raise DataError(f"the split {name} in {data_dir} is empty: convert some images")
        if manifest.is_multi_label != first.is_multi_label:
            multi, single = (name, names[0]) if manifest.is_multi_label else (names[0], name)
            raise DataError(
                f"in {data_dir} only {multi} is multi-label, not {single}: convert both with the "
                "same --label_separator"
            )
        if manifest.classes != first.classes:
            odd = sorted(set(first.classes) ^ set(manifest.classes))
            difference = f"only one has {', '.join(map(repr, odd[:5]))}" if odd else "another order"
            advice = "convert both again"
            if set(manifest.classes) <= set(first.classes):
                path = manifest_path(first.folder, first.name)
                advice = f"convert {name} again with --classes_from {path}"
            raise DataError(
                f"the splits {names[0]} and {name} in {data_dir} have different classes "
                f"({difference}): {advice}"
            )
