"""Labeled files in a folder tree of any size: nothing is sorted or held in memory."""

import os
from collections.abc import Iterator
from pathlib import Path

from library.dataset.locations import FileLocation, NoLocation, locate
from library.dataset.sources.base import Entry, LabeledFile, as_utf8, is_ignored, label_files
from library.errors import DataError, reason_of


def find_in_folder(
    root: Path, exclude: str | Path | None = None, follow_links: bool = False
) -> Iterator[LabeledFile]:
    """Yield the labeled files under a folder.

    Args:
        root: The folder, which may itself be a link.
        exclude: A folder inside it that is not searched.
        follow_links: Whether to follow links that lead out of it. Otherwise such an image is never
            read.

    Raises:
        DataError: A class folder has no images, or, without `follow_links`, a link leads to a
            folder outside, which may be of any size.
    """
    return label_files(_walk(root, exclude, follow_links), root)


def _walk(root: Path, exclude: str | Path | None, follow_links: bool) -> Iterator[Entry]:
    """Yield the files in a folder tree, and the folders that are visited."""
    inside = None if follow_links else os.path.join(os.path.realpath(root), "")  # noqa: PTH118
    excluded = Path(exclude).resolve() if exclude and Path(exclude) != root else None
    # Each folder is visited once, whatever links lead back to it.
    visited: set[tuple[int, int]] = set()
    pending = [(str(root), "")]
    while pending:
        path, prefix = pending.pop()
        status = Path(path).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in visited or (excluded and Path(path).resolve() == excluded):
            continue
        visited.add(identity)
        yield Entry(prefix[:-1] or ".", True)
        folders = []
        for entry in _entries(path):
            name = prefix + as_utf8(entry.name)
            if _is_folder(entry):
                if not is_ignored(entry.name):
                    if _leads_out(entry, inside):
                        raise DataError(
                            f"the link {entry.path} leads out of {root}: copy what it leads to, or "
                            "convert with --follow_links"
                        )
                    folders.append((entry.is_symlink(), entry.path, f"{name}/"))
                continue
            yield _file_entry(entry, name, inside)
        # Last in, first out: a folder itself is visited before the links to it.
        pending += [each[1:] for each in sorted(folders, reverse=True)]


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"the folder {path} can't be read: {reason_of(error)}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_out(entry: os.DirEntry[str], inside: str | None) -> bool:
    return (
        inside is not None
        and entry.is_symlink()
        and not os.path.join(os.path.realpath(entry.path), "").startswith(inside)  # noqa: PTH118
    )


def _file_entry(entry: os.DirEntry[str], name: str, inside: str | None) -> Entry:
    size, version, location = locate(entry.path)
    if isinstance(location, FileLocation) and _leads_out(entry, inside):
        location = NoLocation("it is a link that leads out of the folder: use --follow_links")
    return Entry(name, False, size, version, location)
