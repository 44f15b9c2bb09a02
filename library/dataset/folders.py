"""Labelled files in a folder tree, of any size: nothing is sorted or kept."""

import os
from pathlib import Path

from library.dataset.sources import check_classes, is_ignored, label_of, labelled
from library.errors import DataError


def find_in_folder(root, without=None):
    """Yield the LabelledFiles under `root`. Raises DataError for a class folder without any."""
    without = Path(without).resolve() if without and Path(without) != root else None
    found, filled = set(), set()
    # Each folder is visited once, whatever links lead back to it.
    seen = set()
    waiting = [(str(root), "")]
    while waiting:
        path, prefix = waiting.pop()
        if not _is_new(path, seen) or (without and Path(path).resolve() == without):
            continue
        if prefix.count("/") == 1:
            found.add(prefix[:-1])
        folders = []
        for entry in _entries(path):
            name = prefix + entry.name
            if _is_folder(entry):
                if not is_ignored(entry.name):
                    folders.append((entry.is_symlink(), entry.path, f"{name}/"))
                continue
            label = label_of(name)
            if label is not None:
                filled.add(label)
                yield _labelled_entry(entry, name, label)
        # Last in, first out; a folder itself before the links to it.
        waiting += [each[1:] for each in sorted(folders, reverse=True)]
    check_classes(found, filled, root)


def _entries(path):
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"the folder {path} can't be read: {error.strerror}") from None


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_new(path, seen):
    status = Path(path).stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _labelled_entry(entry, name, label):
    try:
        status = entry.stat()
    except OSError as error:  # a link to nothing, or to itself
        return labelled(name, label, 0, 0, ("none", error.strerror))
    # Reading from a pipe or a device could wait forever.
    place = ("file", entry.path) if entry.is_file() else ("none", "it is no regular file")
    return labelled(name, label, status.st_size, status.st_mtime_ns, place)
