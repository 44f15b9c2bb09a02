"""Labeled files named in a CSV file: one row for each, with its file, its label, maybe its set."""

import csv
import io
import posixpath
from pathlib import Path

from library.dataset.sources.base import SPLITS, LabeledFile
from library.dataset.sources.remote import RemoteSizes
from library.dataset.storage import is_remote, read_url
from library.errors import DataError, reason_of
from library.messages import counted

_COLUMNS = ("SET", "FILE", "LABEL")
# What other tools call a set.
_SETS = {**{each: each for each in SPLITS}, "training": "train"}
# Rows whose remote files are asked for together.
_BATCH = 4096


def find_in_table(table, wanted_set="", columns=(), label_separator=""):
    """Yield the LabeledFiles of a CSV file, or of one of its sets (train, validation, test).

    `table` is a path or a URL. `columns` names the columns of set, file and label, in that order.
    Files are relative to the CSV file's folder, or URLs. Without a header, the columns are SET,
    FILE and LABEL. With a `label_separator`, a label is a tuple of classes: of `cat|dog` both, of
    an empty cell none.
    """
    columns = columns or _COLUMNS
    if len(columns) != len(_COLUMNS):
        raise DataError(
            f"csv_columns names {counted(len(columns), 'column')}, not those of set, file, label"
        )
    sizes, waiting = RemoteSizes(), []
    for name, label in _wanted_rows(table, wanted_set, columns, label_separator):
        if not is_remote(table) and not is_remote(name):
            yield _local_file(table.parent, name, label)
            continue
        waiting.append((name, label))
        if len(waiting) == _BATCH:
            yield from _remote_files(table, waiting, sizes)
            waiting = []
    yield from _remote_files(table, waiting, sizes)


def _wanted_rows(table, wanted_set, columns, label_separator):
    """Yield (file, label) of the rows of a set, or of all."""
    found = False
    try:
        with open_table(table) as file:
            for line, values in _rows(csv.reader(file), table, columns):
                name_of_set, name, label = (each.strip() for each in values)
                if wanted_set and _set_of(name_of_set) != _set_of(wanted_set):
                    continue
                if not name or not (label or label_separator):
                    raise DataError(f"{table}, line {line}: a file or a label is missing")
                if label_separator:
                    label = _several(label, label_separator, f"{table}, line {line}")
                found = True
                yield name, label
    except (OSError, csv.Error) as error:
        raise DataError(f"{table} can't be read: {error}") from None
    if not found:
        which = f" of the set {wanted_set!r}" if wanted_set else ""
        raise DataError(f"{table} holds no rows{which}")


def open_table(table):
    """Return a CSV file, at a path or a URL, opened to be read. Raises OSError, UserError."""
    text = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if is_remote(table):
        return io.TextIOWrapper(io.BytesIO(read_url(table)), **text)
    return table.open(**text)


def _set_of(cell):
    return _SETS.get(cell.lower(), cell.lower())


def _several(cell, separator, where):
    """Return the classes in a cell, each once, in the order of their ids."""
    labels = {each.strip() for each in cell.split(separator)} if cell else set()
    if "" in labels:
        raise DataError(f"{where}: {cell!r} has {separator!r} beside nothing")
    return tuple(sorted(labels))


def _rows(reader, path, columns):
    """Yield (line, (set, file, label)) of each row."""
    first = next(reader, [])
    # A header's first cell names a column, a row's a set.
    if len(first) == len(_COLUMNS) and first[0].strip().lower() in _SETS:
        positions = [0, 1, 2]
        yield reader.line_num, first
    else:
        positions = _positions(first, path, columns)
    for row in reader:
        if not row:
            continue
        try:
            yield reader.line_num, [row[each] if each is not None else "" for each in positions]
        except IndexError:
            raise DataError(f"{path}, line {reader.line_num}: has too few columns") from None


def _positions(header, path, columns):
    names = [each.strip().lower() for each in header]
    positions = [names.index(each.lower()) if each.lower() in names else None for each in columns]
    missing = [each for each, at in zip(columns[1:], positions[1:], strict=True) if at is None]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r} (it has: {', '.join(header) or 'none'}); "
            "--csv_columns names those of set, file and label"
        )
    return positions


def _local_file(folder, name, label):
    path = folder / Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return LabeledFile(name, label, 0, 0, ("none", reason_of(error)))
    return LabeledFile(name, label, status.st_size, status.st_mtime_ns, ("file", str(path)))


def _remote_files(table, rows, sizes):
    """Yield the LabeledFiles of (file, label) rows whose files are at URLs."""
    urls = [name if is_remote(name) else beside(table, name) for name, _ in rows]
    for (name, label), url, found in zip(rows, urls, sizes.find(urls), strict=True):
        if isinstance(found, str):
            yield LabeledFile(name, label, 0, 0, ("none", found))
        else:
            yield LabeledFile(name, label, *found, ("remote", url))


def beside(table, name):
    """Return the URL of a file that a table at a URL names relative to itself."""
    protocol, _, path = table.partition("://")
    # One that begins with a slash too: there is no root that it could begin at.
    return f"{protocol}://{posixpath.normpath(f'{posixpath.dirname(path)}/{name}')}"
