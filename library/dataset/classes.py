"""Which classes there are and in which order: the training split fixes both."""

from pathlib import Path

from library.dataset.manifest import SUFFIX, manifest_path, read_manifest_file
from library.dataset.sources import SPLITS
from library.dataset.stores import is_remote
from library.errors import DataError

TRAINING = SPLITS[0]

# What is written between several classes of an image.
_SEPARATORS = "|;,+&/"


def find_training_manifest(folder, name):
    """Give the path of the training split's manifest beside the split `name`, or None.

    Looked for in `folder` itself, and in the folder `train` beside it.
    """
    if name == TRAINING:
        return None
    for candidate in (Path(folder), Path(folder).parent / TRAINING):
        path = manifest_path(candidate, TRAINING)
        if path.is_file():
            return path
    return None


def order_classes(labels, training_manifest=None):
    """Give the classes in the order of their ids.

    Those of the training split where its manifest is given; else the labels found, by code point.
    Raises DataError for a label that the training split lacks.
    """
    if training_manifest is None:
        return tuple(sorted(labels))
    path = training_manifest
    if not is_remote(path) and Path(path).is_dir():
        path = Path(path) / f"{TRAINING}{SUFFIX}"
    classes = _read(path).classes
    unknown = sorted(set(labels) - set(classes))
    if unknown:
        raise DataError(
            f"{_names(unknown)} not among the classes of {path} ({', '.join(classes[:10])}"
            f"{', …' if len(classes) > 10 else ''}): rename or remove what is not, or convert "
            "the training split again if its classes have changed"
        )
    return classes


def find_joined(classes):
    """Give (class, separator) of one whose name is made of others', as cat|dog is, or None."""
    known = set(classes)
    for name in classes:
        for separator in _SEPARATORS:
            parts = name.split(separator)
            if len(parts) > 1 and known.issuperset(each.strip() for each in parts):
                return name, separator
    return None


def _read(path):
    if not is_remote(path):
        return read_manifest_file(path)
    from library.dataset.fetching import find_split

    url, _, file = path.rpartition("/")
    return find_split(url, file.removesuffix(SUFFIX))


def _names(names):
    shown = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
    return f"the class {shown} is" if len(names) == 1 else f"the classes {shown} are"
