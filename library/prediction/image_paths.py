"""The images to predict from: files, folders, archives, CSV files, shards; labeled or not.

Unlike a conversion's sources these need no class folders: whatever file lies there is taken.
"""

import csv
import os
from pathlib import Path

from library.dataset.locations import FileLocation, NoLocation, RemoteLocation
from library.dataset.sources.base import LabeledFile, is_archive, is_generated, is_ignored
from library.dataset.sources.find import find_files
from library.dataset.sources.table import file_url, open_table
from library.dataset.storage import is_remote
from library.errors import DataError, reason_of

_COLUMN = "FILE"


def find_images(paths):
    """Return an iterator of a LabeledFile for each image in the paths, in order, sorted by name.

    A name is the path as given, with what is inside it after a slash; the label is empty. Raises
    DataError at once where a path is missing or holds nothing; what can't be read is known later.
    """
    found = [_find(path) for path in paths]
    # All of them are looked at before the first image is: a misspelled path shows at once.
    first = [next(each, None) for each in found]
    for path, file in zip(paths, first, strict=True):
        if file is None:
            raise DataError(f"{path} holds no files")
    return _chained(first, found)


def _chained(first, found):
    for file, rest in zip(first, found, strict=True):
        yield file
        yield from rest


def _find(text):
    if not text:
        # The current folder would be taken: a variable that is empty is no wish.
        raise DataError("a path is empty: name a file or a folder")
    path = Path(text)
    if path.name.endswith((".manifest.json", ".tfrecord")) or "*" in path.name:
        return iter(find_files(text))
    if is_remote(text):
        return _at_url(text)
    if path.is_dir():
        return _in_folder(path)
    for outer in (path, *path.parents):
        if outer.is_file():
            if is_archive(outer):
                return _in_archive(outer, path.relative_to(outer).as_posix())
            if outer != path:
                break
            return _in_table(path) if path.suffix.lower() == ".csv" else iter([_file(path)])
    raise DataError(f"there is no file or folder {text}")


def _at_url(url):
    if url.lower().endswith(".csv"):
        return _in_table(url)
    if is_archive(Path(url)):
        return iter(find_files(url))  # which refuses it
    from library.dataset.sources.remote import find_any_in_url

    return find_any_in_url(url)


def _file(path, name=None):
    try:
        size = path.stat().st_size
        location = FileLocation(str(path))
        if not path.is_file():
            location = NoLocation("is not a regular file")
    except (OSError, ValueError) as error:
        size, location = 0, NoLocation(reason_of(error))
    return LabeledFile(name or str(path), "", size, 0, location)


def _in_folder(root):
    def refuse(error):
        raise DataError(f"the folder {error.filename} can't be read: {reason_of(error)}")

    # Links to folders are not followed: they may lead back here.
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(each for each in folders if not is_ignored(each))
        for name in sorted(names):
            if _is_taken(name):
                yield _file(Path(folder, name))


def _in_archive(path, inside):
    from library.dataset.sources.archive import find_members

    prefix = "" if inside == "." else f"{inside}/"
    for name, is_folder, size, version, location in find_members(path, with_content=True):
        name = name.removeprefix("./").replace("\\", "/")
        *folders, last = name.split("/")
        if is_folder or any(map(is_ignored, folders)) or not _is_taken(last):
            continue
        if name == inside or name.startswith(prefix):
            yield LabeledFile(f"{path}/{name}", "", size, version, location)


def _in_table(path):
    """Yield the files in the column FILE of a CSV file; other columns are left alone.

    The CSV file is at a path or a URL, and so may be the files.
    """
    try:
        with open_table(path) as file:
            rows = csv.reader(file)
            header = [each.strip().upper() for each in next(rows, [])]
            if _COLUMN not in header:
                raise DataError(
                    f"{path} has no column {_COLUMN} (its first line: {','.join(header)})"
                )
            at = header.index(_COLUMN)
            for row in rows:
                if not row:
                    continue
                if len(row) <= at or not row[at].strip():
                    raise DataError(f"{path}, line {rows.line_num}: a file is missing")
                # Relative to the table, as in a conversion.
                name = row[at].strip()
                if url := file_url(path, name):
                    yield LabeledFile(name, "", 0, 0, RemoteLocation(url))
                else:
                    yield _file(path.parent / name, name)
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} can't be read: {error}") from None


def _is_taken(name):
    return not is_generated(name) and not name.startswith(".")
