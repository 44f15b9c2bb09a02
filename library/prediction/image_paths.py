"""Find images to predict: files, folders, archives, CSV files and shards, labeled or not.

Unlike the sources of a conversion, these need no class folders: every file in them is taken.
"""

import csv
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from library.dataset.locations import FileLocation, Location, NoLocation, RemoteLocation
from library.dataset.sources.base import (
    NO_CLASS,
    LabeledFile,
    is_archive,
    is_generated,
    is_ignored,
)
from library.dataset.sources.find import find_files
from library.dataset.sources.table import file_url, open_table
from library.dataset.storage import is_remote
from library.errors import DataError, reason_of

_COLUMN = "FILE"


def find_images(paths: Sequence[str]) -> Iterator[LabeledFile]:
    """Return an iterator of the files in some paths, in order, sorted within each path.

    A file's name is the path as given, followed by its path inside; it has no label.

    Raises:
        DataError: A path is missing or has no files. That is checked at once; a file that cannot
            be read is found out later.
    """
    chains = []
    for path in paths:
        files = _find(path)
        first = next(files, None)
        if first is None:
            raise DataError(f"{path} has no files")
        chains.append(itertools.chain([first], files))
    return itertools.chain.from_iterable(chains)


def _find(text: str) -> Iterator[LabeledFile]:
    if not text:
        # Path("") is the current folder, but an empty shell variable does not mean that.
        raise DataError("a path is empty; give a file or a folder")
    path = Path(text)
    if path.name.endswith((".manifest.json", ".tfrecord")) or "*" in path.name:
        return iter(find_files(text))
    if is_remote(text):
        return _find_at_url(text)
    if path.is_dir():
        return _find_in_folder(path)
    for outer in (path, *path.parents):
        if outer.is_file():
            if is_archive(outer):
                return _find_in_archive(outer, path.relative_to(outer).as_posix())
            if outer != path:
                break
            if path.suffix.lower() == ".csv":
                return _find_in_table(path)
            return iter([_local_file(path)])
    raise DataError(f"there is no file or folder {text}")


def _find_at_url(url: str) -> Iterator[LabeledFile]:
    if url.lower().endswith(".csv"):
        return _find_in_table(url)
    if is_archive(Path(url)):
        return iter(find_files(url))  # raises the error for archives at a URL
    return _find_below_url(url.rstrip("/"))


def _find_below_url(url: str) -> Iterator[LabeledFile]:
    """Yield the file at a URL, or each file below it, named by its URL."""
    from library.dataset.sources.remote import RemoteFacts, walk_url

    ((size, version, location),) = RemoteFacts().find([url])
    if isinstance(location, RemoteLocation):
        yield LabeledFile(url, NO_CLASS, size, version, location)
        return
    for path, is_folder, size, version, location in walk_url(url):
        if not is_folder and _is_image_name(path.rpartition("/")[2]):
            yield LabeledFile(f"{url}/{path}", NO_CLASS, size, version, location)


def _find_in_folder(root: Path) -> Iterator[LabeledFile]:
    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"the folder {error.filename} cannot be read: {reason_of(error)}")

    # Links to folders are not followed: they may lead back to this one.
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            if _is_image_name(name):
                yield _local_file(Path(folder, name))


def _find_in_archive(path: Path, inside: str) -> Iterator[LabeledFile]:
    from library.dataset.sources.archive import find_members

    prefix = "" if inside == "." else f"{inside}/"
    for member in find_members(path, with_content=True):
        name = member.name.removeprefix("./").replace("\\", "/")
        *folders, last = name.split("/")
        if member.is_folder or any(map(is_ignored, folders)) or not _is_image_name(last):
            continue
        if name == inside or name.startswith(prefix):
            yield LabeledFile(
                f"{path}/{name}", NO_CLASS, member.size, member.version, member.location
            )


def _find_in_table(table: str | Path) -> Iterator[LabeledFile]:
    """Yield the files in the column FILE of a CSV file; both may be at a URL."""
    try:
        with open_table(table) as file:
            rows = csv.DictReader(file)
            header = [name.strip().upper() for name in rows.fieldnames or ()]
            if _COLUMN not in header:
                raise DataError(f"{table} has no column {_COLUMN} (its header: {','.join(header)})")
            rows.fieldnames = header
            for row in rows:
                name = (row[_COLUMN] or "").strip()
                if not name:
                    raise DataError(f"{table}, line {rows.line_num}: a file is missing")
                url = file_url(table, name)
                if url is None:
                    # Relative to the CSV file, as in a conversion.
                    yield _local_file(Path(table).parent / name, name)
                else:
                    yield LabeledFile(name, NO_CLASS, 0, 0, RemoteLocation(url))
    except (OSError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}") from None


def _local_file(path: Path, name: str = "") -> LabeledFile:
    location: Location
    try:
        # A pipe or a device would block the reader.
        is_regular = stat.S_ISREG(path.stat().st_mode)
        location = FileLocation(str(path)) if is_regular else NoLocation("is not a regular file")
    except (OSError, ValueError) as error:
        location = NoLocation(reason_of(error))
    return LabeledFile(name or str(path), NO_CLASS, 0, 0, location)


def _is_image_name(name: str) -> bool:
    return not is_generated(name) and not name.startswith(".")
