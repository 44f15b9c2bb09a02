"""Labelled files named in a CSV file: one row for each, with its file, its label, maybe its set."""

import csv
from pathlib import Path

from library.counted import counted
from library.dataset.sources import SPLITS, LabelledFile
from library.errors import DataError

_COLUMNS = ("SET", "FILE", "LABEL")


def find_in_table(path, wanted_set="", columns=(), label_separator=""):
    """Yield the LabelledFiles of a CSV file, or of one of its sets (train, validation, test).

    `columns` names the columns of set, file and label, in that order. Files are relative to the
    CSV file's folder. Without a header, the columns are SET, FILE and LABEL. With a
    `label_separator`, a label is a tuple of classes: of `cat|dog` both, of an empty cell none.
    """
    columns = columns or _COLUMNS
    if len(columns) != len(_COLUMNS):
        raise DataError(
            f"csv_columns names {counted(len(columns), 'column')}, not those of set, file, label"
        )
    found = False
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            for line, values in _rows(csv.reader(file), path, columns):
                name_of_set, name, label = (each.strip() for each in values)
                if wanted_set and name_of_set.lower() != wanted_set.lower():
                    continue
                if not name or not (label or label_separator):
                    raise DataError(f"{path}, line {line}: a file or a label is missing")
                if label_separator:
                    label = _several(label, label_separator, f"{path}, line {line}")
                found = True
                yield _labelled_row(path.parent, name, label)
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    if not found:
        which = f" of the set {wanted_set!r}" if wanted_set else ""
        raise DataError(f"{path} holds no rows{which}")


def _several(cell, separator, where):
    """Give the classes in a cell, each once, in the order of their ids."""
    labels = {each.strip() for each in cell.split(separator)} if cell else set()
    if "" in labels:
        raise DataError(f"{where}: {cell!r} has {separator!r} beside nothing")
    return tuple(sorted(labels))


def _rows(reader, path, columns):
    """Yield (line, (set, file, label)) of each row."""
    first = next(reader, [])
    # A header's first cell names a column, a row's a set.
    if len(first) == len(_COLUMNS) and first[0].strip().lower() in SPLITS:
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


def _labelled_row(folder, name, label):
    path = folder / Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return LabelledFile(name, label, 0, 0, ("none", reason))
    return LabelledFile(name, label, status.st_size, status.st_mtime_ns, ("file", str(path)))
