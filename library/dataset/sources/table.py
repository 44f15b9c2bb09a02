"""Labeled files listed in a CSV file: a row has a file, its label and, optionally, its split."""

import csv
import io
import itertools
import posixpath
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from library.dataset.locations import FileLocation, Location, NoLocation
from library.dataset.sources.base import SPLITS, LabeledFile
from library.dataset.sources.remote import RemoteFacts
from library.dataset.storage import is_remote, read_url
from library.errors import DataError, reason_of
from library.messages import counted

_COLUMNS = ("SET", "FILE", "LABEL")
_SPLITS = {**{each: each for each in SPLITS}, "training": "train"}
# Rows whose remote files are looked up together.
_BATCH = 4096


def find_in_table(
    table: str | Path, split: str = "", columns: Sequence[str] = (), label_separator: str = ""
) -> Iterator[LabeledFile]:
    """Yield the labeled files of a CSV file.

    Args:
        table: Path or URL of the CSV file. Its files are URLs, or paths relative to its folder.
        split: The split to yield (train, validation or test); "" for all rows.
        columns: Names of the columns of split, file and label. By default, or in a file without a
            header, they are SET, FILE and LABEL.
        label_separator: If given, the data is multi-label: with "|", `cat|dog` is both classes,
            and an empty cell none.

    Raises:
        DataError: The file is missing or malformed, or has no rows of the split.
    """
    columns = columns or _COLUMNS
    if len(columns) != len(_COLUMNS):
        raise DataError(
            f"csv_columns names {counted(len(columns), 'column')}, not those of set, file, label"
        )
    facts, pending = RemoteFacts(), []
    for name, label in _rows_of(table, split, columns, label_separator):
        url = file_url(table, name)
        if url is None:
            yield _local_file(Path(table).parent, name, label)
            continue
        pending.append((name, label, url))
        if len(pending) == _BATCH:
            yield from _remote_files(pending, facts)
            pending = []
    yield from _remote_files(pending, facts)


def open_table(table: str | Path) -> TextIO:
    """Return a CSV file, at a path or a URL, opened for reading. Raise OSError, UserError."""
    if is_remote(table):
        content = io.BytesIO(read_url(str(table)))
        return io.TextIOWrapper(content, "utf-8-sig", "surrogateescape", newline="")
    return Path(table).open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def file_url(table: str | Path, name: str) -> str | None:
    """Return the URL of a file that a CSV file lists, or None for a local file."""
    if is_remote(name):
        return name
    if not is_remote(table):
        return None
    protocol, _, path = str(table).partition("://")
    # A leading slash means the table's folder too: a store has no other root.
    return f"{protocol}://{posixpath.normpath(f'{posixpath.dirname(path)}/{name}')}"


def _rows_of(
    table: str | Path, split: str, columns: Sequence[str], label_separator: str
) -> Iterator[tuple[str, str | tuple[str, ...]]]:
    """Yield (file, label) of the rows of a split, or of all rows."""
    is_empty = True
    try:
        with open_table(table) as file:
            reader = csv.reader(file)
            for row_split, name, label in _read_rows(reader, table, columns):
                if split and _split_of(row_split) != _split_of(split):
                    continue
                where = f"{table}, line {reader.line_num}"
                if not name or not (label or label_separator):
                    raise DataError(f"{where}: a file or a label is missing")
                is_empty = False
                if label_separator:
                    yield name, _split_label(label, label_separator, where)
                else:
                    yield name, label
    except (OSError, csv.Error) as error:
        raise DataError(f"{table} can't be read: {reason_of(error)}") from None
    if is_empty:
        raise DataError(f"{table} has no rows{f' of the set {split!r}' if split else ''}")


def _split_of(cell: str) -> str:
    return _SPLITS.get(cell.lower(), cell.lower())


def _split_label(cell: str, separator: str, where: str) -> tuple[str, ...]:
    """Return the classes in a cell, each once, in the order of their ids."""
    labels = {each.strip() for each in cell.split(separator)} if cell else set()
    if "" in labels:
        raise DataError(f"{where}: {cell!r} has an empty class beside {separator!r}")
    return tuple(sorted(labels))


def _read_rows(reader: Any, table: str | Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield [split, file, label] of each row."""
    positions: Sequence[int | None] = (0, 1, 2)
    first: list[str] = next(reader, [])
    rows = reader
    # The first cell of a header is the name of a column; of a row, it is a split.
    if len(first) == len(_COLUMNS) and first[0].strip().lower() in _SPLITS:
        rows = itertools.chain([first], reader)
    else:
        positions = _positions(first, table, columns)
    for row in filter(None, rows):
        try:
            yield ["" if each is None else row[each].strip() for each in positions]
        except IndexError:
            raise DataError(f"{table}, line {reader.line_num}: has too few columns") from None


def _positions(
    header: list[str], table: str | Path, columns: Sequence[str]
) -> Sequence[int | None]:
    names = [each.strip().lower() for each in header]
    positions = [names.index(each.lower()) if each.lower() in names else None for each in columns]
    for column, position in list(zip(columns, positions, strict=True))[1:]:
        if position is None:
            raise DataError(
                f"{table} has no column {column!r} (it has: {', '.join(header) or 'none'}); "
                "--csv_columns names those of set, file and label"
            )
    return positions


def _local_file(folder: Path, name: str, label: str | tuple[str, ...]) -> LabeledFile:
    path = folder / name
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return LabeledFile(name, label, 0, 0, NoLocation(reason_of(error)))
    location: Location = FileLocation(str(path))
    if not stat.S_ISREG(status.st_mode):
        location = NoLocation("it is not a regular file")
    return LabeledFile(name, label, status.st_size, status.st_mtime_ns, location)


def _remote_files(
    rows: list[tuple[str, str | tuple[str, ...], str]], facts: RemoteFacts
) -> Iterator[LabeledFile]:
    """Yield the labeled files of (file, label, URL) rows."""
    found = facts.find([url for _, _, url in rows])
    for (name, label, _), (size, version, location) in zip(rows, found, strict=True):
        yield LabeledFile(name, label, size, version, location)
