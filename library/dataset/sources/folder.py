"""Labeled files in a folder tree, of any size: nothing is sorted or kept."""

import os
from pathlib import Path

from library.dataset.sources.base import check_classes, is_ignored, label_of, labeled_file
from library.errors import DataError, reason_of


def find_in_folder(root, without=None, follow_links=False):
    """Yield the LabeledFiles under `root`, which may itself be a link.

    What a link inside it leads to must lie inside too, unless `follow_links`: an image that does
    not is never read. Raises DataError for such a link to a folder, of which nobody knows how much
    it holds, and for a class folder without any images.
    """
    inside = None if follow_links else os.path.join(os.path.realpath(root), "")  # noqa: PTH118
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
                    if _leads_out(entry, inside):
                        raise DataError(
                            f"the link {entry.path} leads out of {root}, to "
                            f"{os.path.realpath(entry.path)}: copy that folder, or convert "
                            "with --follow_links"
                        )
                    folders.append((entry.is_symlink(), entry.path, f"{name}/"))
                continue
            label = label_of(name)
            if label is not None:
                filled.add(label)
                yield _labeled_entry(entry, name, label, inside)
        # Last in, first out; a folder itself before the links to it.
        waiting += [each[1:] for each in sorted(folders, reverse=True)]
    check_classes(found, filled, root)


def _entries(path):
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"the folder {path} can't be read: {reason_of(error)}") from None


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_out(entry, inside):
    return (
        inside is not None
        and entry.is_symlink()
        and not os.path.join(os.path.realpath(entry.path), "").startswith(inside)  # noqa: PTH118
    )


def _is_new(path, seen):
    status = Path(path).stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _labeled_entry(entry, name, label, inside):
    try:
        status = entry.stat()
    except OSError as error:  # a link to nothing, or to itself
        return labeled_file(name, label, 0, 0, ("none", reason_of(error)))
    if not entry.is_file():
        # Reading from a pipe or a device could wait forever.
        place = ("none", "it is no regular file")
    elif _leads_out(entry, inside):
        place = ("none", "it is a link that leads out of the folder: convert with --follow_links")
    else:
        place = ("file", entry.path)
    return labeled_file(name, label, status.st_size, status.st_mtime_ns, place)
