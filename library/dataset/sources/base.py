"""Where labeled files come from: a folder, an archive, a CSV file, or other shards."""

from functools import lru_cache
from typing import NamedTuple

from library.errors import DataError

SPLITS = ("train", "validation", "test")
# The label of an image that lies beside the class folders: it is left out by name.
NO_CLASS = ""
# What a conversion writes, which may lie among the images it was made from.
_OURS = (".tfrecord", ".manifest.json", ".rejected.csv")
# What systems leave behind: a class may well have the name of such a file.
_SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}
_SYSTEM_FOLDERS = {"__MACOSX"}
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class LabeledFile(NamedTuple):
    """A file that should be an image.

    `name` is its path inside the source, with slashes. `label` is its class; where images may have
    several, or none, a tuple of them. `stamp` changes when its content does. `place` says where its
    bytes are: see `reading.py`.
    """

    name: str
    label: str | tuple
    size: int
    stamp: int
    place: tuple

    @property
    def labels(self):
        """All its classes, as a tuple."""
        return labels_of(self.label)


def is_archive(path):
    """Return whether a file's name is that of an archive."""
    return path.name.lower().endswith(_ARCHIVE_SUFFIXES)


def is_ours(name):
    """Return whether a file has a name that a conversion, or a system, gives to its own files."""
    return name.endswith(_OURS) or name in _SYSTEM_FILES


def label_of(name):
    """Return the class of a path inside a source; None if the file is none of the images."""
    folder, _, file = name.rpartition("/")
    if file.startswith(".") or file in _SYSTEM_FILES or file.endswith(_OURS):
        return None
    if not folder:
        return NO_CLASS if name.lower().endswith(_IMAGE_SUFFIXES) else None
    return _class_of(folder)


# Most files lie in the same folder as the one before.
@lru_cache(maxsize=64)
def _class_of(folder):
    folders = folder.split("/")
    return None if any(map(is_ignored, folders)) else folders[0]


def labels_of(label):
    """Return all classes in a label as a tuple: those in it, or the only one."""
    return (label,) if isinstance(label, str) else tuple(label)


def labeled_file(name, label, size, stamp, place):
    """Return the LabeledFile; one that has no class is never read."""
    if label == NO_CLASS:
        place = ("none", "it lies beside the class folders, so it has no class")
    return LabeledFile(name, label, size, stamp, place)


def is_streamed(file):
    """Return whether a LabeledFile can only be read together with those before it."""
    return file.place[0] == "streamed"


def check_classes(found, filled, source):
    """Raise DataError if one of the class folders `found` is not among the `filled` ones."""
    empty = sorted(found - filled)
    if empty:
        raise DataError(f"the class folder {source}/{empty[0]} holds no images: fill or remove it")


def is_ignored(name):
    """Return whether a folder of this name is the system's, not the user's."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS
