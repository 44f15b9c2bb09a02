"""Where labelled files come from: a folder, an archive, a CSV file, or other shards."""

import re
from functools import lru_cache
from pathlib import Path
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
# Files at a URL, and what is named inside them: told by their names, without a look.
_REMOTE_TABLE = re.compile(r"(.*?://.*?\.csv)(?:/(.*))?", re.IGNORECASE)
_REMOTE_FILE = re.compile(r".*?://.*(\.zip|\.tar|\.tgz|\.tar\.\w+|\.tfrecord)(/.*)?", re.IGNORECASE)


class LabelledFile(NamedTuple):
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


def find_files(
    source, without=None, columns=(), with_content=False, label_separator="", follow_links=False
):
    """Yield the LabelledFiles of a source, in no certain order.

    `source` is a folder, a folder inside a zip or tar, a CSV file (or one of its sets:
    `images.csv/train`), a manifest, or TFRecord files (a file or a pattern). In a folder the first
    folder is the class: `cat/7.jpg`, `cat/indoors/8.jpg`; the folder `without` is not looked into,
    and links out of the source are followed only with `follow_links`.
    `columns` names a CSV file's columns; `label_separator` divides its labels, where images have
    several. What can only be read from front to back (a compressed
    tar) has its bytes in its place if they are wanted `with_content`, and can't be read otherwise.
    A folder, a CSV file or a manifest may be at a URL. Raises DataError where there is no such
    source.
    """
    # Each kind of source is a file of its own, which imports what it needs.
    if "://" in str(source):
        return _find_at_url(str(source).rstrip("/"), columns, label_separator)
    source = Path(source)
    if source.is_dir():
        from library.dataset.folders import find_in_folder

        return find_in_folder(source, without, follow_links)
    if source.name.endswith((".tfrecord", ".manifest.json")) or "*" in source.name:
        from library.dataset.other_shards import find_in_shards

        return find_in_shards(source)
    for outer in (source, *source.parents):
        if outer.is_file():
            inside = source.relative_to(outer).as_posix()
            inside = "" if inside == "." else inside
            return _find_inside(outer, inside, columns, with_content, label_separator)
    raise DataError(f"there is no folder {source}: put images at {source}/<class>/<image>")


def _find_at_url(url, columns, label_separator):
    if table := _REMOTE_TABLE.fullmatch(url):
        from library.dataset.tables import find_in_table

        return find_in_table(table[1], table[2] or "", columns, label_separator)
    if url.endswith(".manifest.json"):
        from library.dataset.fetching import fetch_manifest
        from library.dataset.other_shards import find_in_shards

        return find_in_shards(fetch_manifest(url))
    if _REMOTE_FILE.fullmatch(url):
        raise DataError(
            f"{url}: at a URL can be folders, CSV files and manifests; copy this here first"
        )
    from library.dataset.remote import find_in_url

    return find_in_url(url)


def is_there(source):
    """Tell whether a folder, or a folder inside an archive, exists."""
    try:
        next(find_files(source), None)
    except DataError:
        return False
    return True


def _find_inside(path, inside, columns, with_content, label_separator):
    if path.suffix.lower() == ".csv":
        from library.dataset.tables import find_in_table

        return find_in_table(path, inside, columns, label_separator)
    if is_archive(path):
        from library.dataset.archives import find_in_archive

        return find_in_archive(path, inside, with_content)
    raise DataError(f"{path} is a file, but no {', '.join(_ARCHIVE_SUFFIXES)} or .csv")


def is_archive(path):
    """Tell whether a file's name is that of an archive."""
    return path.name.lower().endswith(_ARCHIVE_SUFFIXES)


def is_ours(name):
    """Tell whether a file has a name that a conversion, or a system, gives to its own files."""
    return name.endswith(_OURS) or name in _SYSTEM_FILES


def label_of(name):
    """Give the class of a path inside a source; None if the file is none of the images."""
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
    """Give all classes in a label as a tuple: those in it, or the only one."""
    return (label,) if isinstance(label, str) else tuple(label)


def labelled(name, label, size, stamp, place):
    """Give the LabelledFile; one that has no class is never read."""
    if label == NO_CLASS:
        place = ("none", "it lies beside the class folders, so it has no class")
    return LabelledFile(name, label, size, stamp, place)


def is_streamed(file):
    """Tell whether a LabelledFile can only be read together with those before it."""
    return file.place[0] == "streamed"


def check_classes(found, filled, source):
    """Raise DataError if one of the class folders `found` is not among the `filled` ones."""
    empty = sorted(found - filled)
    if empty:
        raise DataError(f"the class folder {source}/{empty[0]} holds no images: fill or remove it")


def is_ignored(name):
    """Tell whether a folder of this name is the system's, not the user's."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS
