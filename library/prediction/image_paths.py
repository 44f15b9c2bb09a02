"""Find images to predict: files, folders, archives, CSV files and shards, labeled or not.

Unlike the sources of a conversion, these need no class folders: every file in them is taken.
"""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from library.dataset.locations import RemoteLocation, locate
from library.dataset.sources.base import (
    NO_CLASS,
    Entry,
    LabeledFile,
    is_archive,
    is_foreign,
    is_ignored,
    is_table,
    leads_outside,
    log_sidecars,
    sidecar_suffix,
)
from library.dataset.sources.csv_rows import open_table, read_rows
from library.dataset.sources.find import SourceOptions, find_files, is_records
from library.dataset.sources.table import file_url, find_listed_file
from library.dataset.storage import explain_store_errors, is_remote, open_store
from library.errors import DataError, reason_of

# Of records, the image alone counts.
_UNLABELED = SourceOptions(tfrecord_fields=("label=none", "text=none"))


def find_images(paths: Sequence[str], columns: Sequence[str] = ()) -> Iterator[LabeledFile]:
    """Return an iterator of the files in some paths, in order, sorted within each path.

    A file's name is the path as given, followed by its path inside; it has no label.

    Args:
        paths: Files, folders, archives, folders in archives, CSV files, shards, URLs, patterns.
        columns: Of CSV files, see `read_rows`.

    Raises:
        DataError: A path is missing or has no files. That is checked at once; a file that cannot
            be read is found out later.
    """
    chains = []
    for path in paths:
        files = _find(path, columns)
        first = next(files, None)
        if first is None:
            raise DataError(f"{path} has no files")
        chains.append(itertools.chain([first], files))
    return itertools.chain.from_iterable(chains)


def _find(text: str, columns: Sequence[str]) -> Iterator[LabeledFile]:
    if not text:
        # Path("") is the current folder, but an empty shell variable does not mean that.
        raise DataError("a path is empty; give a file or a folder")
    path = Path(text)
    if is_records(path):
        return iter(find_files(text, _UNLABELED))
    if is_remote(text):
        return _find_at_url(text, columns)
    if path.is_dir():
        return _find_in_folder(path)
    for outer in (path, *path.parents):
        if outer.is_file():
            if is_archive(outer):
                return _find_in_archive(outer, path.relative_to(outer).as_posix())
            if outer != path:
                break
            if is_table(path):
                return _find_in_table(path, columns)
            return iter([_local_file(path)])
    if glob.has_magic(text):
        return _find_by_pattern(text, columns)
    raise DataError(f"there is no file or folder {text}")


def _find_by_pattern(pattern: str, columns: Sequence[str]) -> Iterator[LabeledFile]:
    """Yield the files that match a pattern, and those in matching folders, like a shell would.

    In a pattern, `**` stands for folders of any depth.
    """
    given = set(Path(pattern).parts)
    paths = {}
    for path, is_folder in _expand(pattern):
        is_hidden = any(is_ignored(part) for part in Path(path).parts if part not in given)
        if not is_hidden and (is_folder or not is_foreign(Path(path).name)):
            paths[path] = is_folder
    if not paths:
        raise DataError(f"no file or folder matches {pattern}")
    sidecars: Counter[str] = Counter()
    for path, is_folder in sorted(paths.items()):
        suffix = sidecar_suffix(path)
        if suffix and not is_folder and suffix != sidecar_suffix(pattern):
            sidecars[suffix] += 1
        # `**` finds the files in a folder as well.
        elif not (is_folder and "**" in pattern):
            yield from _find(path, columns)
    log_sidecars(sidecars, pattern)


def _expand(pattern: str) -> Iterator[tuple[str, bool]]:
    """Yield (path, whether it is a folder) of what matches a pattern, local or at a URL."""
    if is_remote(pattern):
        store, path = open_store(pattern)
        with explain_store_errors(pattern):
            for name, info in store.glob(path, detail=True).items():
                yield store.unstrip_protocol(name), info["type"] == "directory"
        return
    for name in glob.glob(pattern, recursive=True):  # noqa: PTH207
        yield name, Path(name).is_dir()


def _find_at_url(url: str, columns: Sequence[str]) -> Iterator[LabeledFile]:
    if is_table(Path(url)):
        return _find_in_table(url, columns)
    if is_archive(Path(url)):
        return iter(find_files(url))  # raises the error for archives at a URL
    # Not ? and [, which a URL may hold.
    if "*" in url:
        return _find_by_pattern(url, columns)
    return _find_below_url(url.rstrip("/"))


def _find_below_url(url: str) -> Iterator[LabeledFile]:
    """Return the file at a URL, or each file below it, named by its URL."""
    from library.dataset.sources.remote import RemoteFacts, walk_url

    (facts,) = RemoteFacts().find([url])
    if isinstance(facts[2], RemoteLocation):
        return iter([LabeledFile(url, NO_CLASS, *facts)])
    return _unlabeled(walk_url(url), url)


def _find_in_folder(root: Path) -> Iterator[LabeledFile]:
    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"the folder {error.filename} cannot be read: {reason_of(error)}")

    sidecars: Counter[str] = Counter()
    # Links to folders are not followed: they may lead back to this one.
    for folder, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            if _may_be_image(name, sidecars):
                yield _local_file(Path(folder, name))
    log_sidecars(sidecars, root)


def _find_in_archive(path: Path, inside: str) -> Iterator[LabeledFile]:
    from library.dataset.sources.archive import find_members

    prefix = "" if inside == "." else f"{inside}/"
    members = (each for each in find_members(path) if f"{each.name}/".startswith(prefix))
    return _unlabeled(members, path, chosen=inside)


def _unlabeled(entries: Iterable[Entry], where: str | Path, chosen: str = "") -> Iterator:
    """Yield the files among the entries of a source; `chosen` is taken whatever its name."""
    sidecars: Counter[str] = Counter()
    for name, is_folder, size, version, location in entries:
        *folders, last = name.split("/")
        if is_folder or (any(map(is_ignored, folders)) and not leads_outside(name)):
            continue
        if name == chosen or _may_be_image(last, sidecars):
            yield LabeledFile(f"{where}/{name}", NO_CLASS, size, version, location)
    log_sidecars(sidecars, where)


def _find_in_table(table: str | Path, columns: Sequence[str]) -> Iterator[LabeledFile]:
    """Yield the files that a CSV file lists; both may be at a URL."""
    try:
        with open_table(table) as file:
            for row in read_rows(file, table, columns, needs_label=False):
                if not row.file:
                    raise DataError(f"{table}, line {row.line}: a file is missing")
                url = file_url(table, row.file)
                if url is None:
                    yield find_listed_file(Path(table).parent, row.file, NO_CLASS)
                else:
                    yield LabeledFile(row.file, NO_CLASS, 0, 0, RemoteLocation(url))
    except OSError as error:
        raise DataError(f"{table} can't be read: {reason_of(error)}") from None


def _local_file(path: Path) -> LabeledFile:
    return LabeledFile(str(path), NO_CLASS, *locate(path))


def _may_be_image(name: str, sidecars: Counter[str]) -> bool:
    """Return whether a file in a folder is to be predicted; count it if it is a side-car."""
    if is_foreign(name):
        return False
    if suffix := sidecar_suffix(name):
        sidecars[suffix] += 1
    return not suffix
