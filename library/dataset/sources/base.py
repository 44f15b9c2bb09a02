"""Labeled files, and which paths of a source are labeled files of which class."""

import glob
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from library.dataset.locations import Location, NoLocation
from library.errors import DataError
from library.logging import log_once
from library.messages import counted

SPLITS = ("train", "validation", "test")
TRAINING = SPLITS[0]
# The first of the folds of a cross-validation, which fixes their classes.
FIRST_FOLD = "fold_1"
# What else people call splits, in any case.
_SPLIT_NAMES = re.compile(
    "(?:(train(?:ing)?)|(val(?:id(?:ation)?)?|dev(?:elopment)?|eval(?:uation)?)|(test(?:ing)?))"
    "(?:[ _.-]*(?:set|split|data|images))?",
    re.IGNORECASE,
)
# The label of an image beside the class folders, which is rejected and listed.
NO_CLASS = ""
# The files that a conversion writes, which may be among the images it was made from.
_CONVERTED_SUFFIXES = (".tfrecord", ".manifest.json", ".rejected.csv")
# Files and folders of operating systems, network drives and tools, in lower case; those that begin
# with a dot need no list. A class may have the name of such a file.
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r"}
_SYSTEM_FOLDERS = {
    *("__macosx", "$recycle.bin", "system volume information", "lost+found", "__pycache__"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
}
# Side-cars: text about the images beside it.
_SIDECAR_SUFFIXES = {
    *("aae", "xmp", "txt", "md", "rst", "log", "html", "htm", "pdf", "xml", "json", "jsonl"),
    *("csv", "tsv", "yaml", "yml", "toml", "ini", "cfg", "py", "ipynb", "url", "lnk"),
}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")
TABLE_SUFFIXES = (".csv", ".tsv")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A file or folder of a source; the name is a path inside it, with slashes."""

    name: str
    is_folder: bool
    size: int = 0
    version: int = 0
    location: Location = NoLocation("it is a folder")


class LabeledFile(NamedTuple):
    """A file that should be an image.

    Attributes:
        name: Path inside the source, with slashes.
        label: Class; for multi-label data a tuple of classes, which may be empty.
        size: Size in bytes.
        version: A number that changes with the content, such as a time or a checksum.
        location: Where the bytes are.
    """

    name: str
    label: str | tuple[str, ...]
    size: int
    version: int
    location: Location

    @property
    def labels(self) -> tuple[str, ...]:
        """All its classes."""
        return labels_of(self.label)


def split_meant(name: str) -> str | None:
    """Return the split that a name such as `Val`, `dev` or `test_set` means, or None."""
    found = _SPLIT_NAMES.fullmatch(name.strip())
    return SPLITS[(found.lastindex or 1) - 1] if found else None


def fold_names(count: int) -> tuple[str, ...]:
    """Return the names of the splits of a cross-validation: fold_1, fold_2, …"""
    return tuple(f"fold_{number}" for number in range(1, count + 1))


def composed(name: str) -> str:
    """Return a name in Unicode's normal form C: macOS writes é as two characters, others as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def as_utf8(name: str) -> str:
    """Return a name from the file system as UTF-8, as which it is stored, whatever the locale."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode()
    except UnicodeDecodeError:  # a name that was written in the locale's own encoding
        return name


def is_archive(path: Path) -> bool:
    """Return whether a file has the name of an archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def is_table(path: Path) -> bool:
    """Return whether a file has the name of a table: CSV, of whatever separator."""
    return path.suffix.lower() in TABLE_SUFFIXES


def expand_records(pattern: str | Path) -> list[Path]:
    """Return what matches a pattern, sorted, without what a conversion writes beside its shards."""
    found = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207 Path's is relative
    return sorted(each for each in found if each.suffix == ".tfrecord" or not is_foreign(each.name))


def is_foreign(name: str) -> bool:
    """Return whether a file is hidden, or named like those of the system or of a conversion."""
    return (
        name.startswith(".") or name.endswith(_CONVERTED_SUFFIXES) or name.lower() in _SYSTEM_FILES
    )


def sidecar_suffix(name: str) -> str:
    """Return the suffix of a file that is by its name text about the images beside it, or ""."""
    _, dot, suffix = name.rpartition(".")
    return suffix.lower() if dot and suffix.lower() in _SIDECAR_SUFFIXES else ""


def is_ignored(name: str) -> bool:
    """Return whether a folder of this name belongs to the system or is hidden."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def leads_outside(name: str) -> bool:
    """Return whether a path inside an archive would lead out of the folder it is unpacked to."""
    return name.startswith("/") or ".." in name.split("/")


def log_sidecars(suffixes: Counter[str], source: object) -> None:
    """Log in one line how many side-cars of a source were ignored, if any."""
    if suffixes:
        kinds = ", ".join(f".{suffix} {count:,}" for suffix, count in sorted(suffixes.items()))
        files = counted(suffixes.total(), "file")
        log_once(logger, f"{source}: ignored {files} that by their names are no images ({kinds})")


def label_of(name: str) -> str | None:
    """Return the class of a path inside a source, or None if the file is not one of the images."""
    folder, _, file = name.rpartition("/")
    # Most files have an image's suffix, which nothing else that is looked for has.
    is_image = file.lower().endswith(IMAGE_SUFFIXES) and not file.startswith(".")
    if not is_image and (is_foreign(file) or sidecar_suffix(file)):
        return None
    label = _class_of(folder)
    return None if label == NO_CLASS and not is_image else label


# Most files are in the same folder as the one before.
@lru_cache(maxsize=64)
def _class_of(folder: str) -> str | None:
    if not folder or leads_outside(folder):
        return NO_CLASS
    folders = folder.split("/")
    return None if any(map(is_ignored, folders)) else folders[0]


def labels_of(label: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return all classes in a label."""
    return (label,) if isinstance(label, str) else tuple(label)


def label_id(label: str | tuple[str, ...], ids: Mapping[str, int]) -> int | tuple[int, ...]:
    """Return the id of a class, -1 for NO_CLASS, or the ids of several."""
    if isinstance(label, tuple):
        return tuple(ids[each] for each in label)
    return ids[label] if label else -1


def label_files(entries: Iterable[Entry], source: str | Path) -> Iterator[LabeledFile]:
    """Yield the labeled files among the entries of a source whose first folders are the classes.

    Raises DataError, after the last, if a class folder has no images.
    """
    found, filled = set(), set()
    sidecars: Counter[str] = Counter()
    for name, is_folder, size, version, location in entries:
        if is_folder:
            if "/" not in name and not is_ignored(name):
                found.add(name)
            continue
        label = label_of(name)
        if label is None:
            folder, _, file = name.rpartition("/")
            if folder and not is_foreign(file) and _class_of(folder):
                sidecars[sidecar_suffix(file)] += 1
            continue
        filled.add(label)
        if label == NO_CLASS and not leads_outside(name):
            location = NoLocation("it lies beside the class folders, so it has no class")
        yield LabeledFile(name, label, size, version, location)
    log_sidecars(sidecars, source)
    if empty := sorted(found - filled):
        raise DataError(f"the class folder {source}/{empty[0]} holds no images: fill or remove it")
