"""The rows of a CSV file of images, as programs and people write them.

Commas, semicolons or tabs; UTF-8, or UTF-16 or UTF-32 with a byte order mark; with a header in any
case, or without one.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from library.dataset.sources.base import IMAGE_SUFFIXES, split_meant
from library.dataset.storage import is_remote, read_url
from library.errors import DataError, reason_of

# The longer marks first: one begins with another.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITERS = (",", ";", "\t")
_COLUMNS = ("SET", "FILE", "LABEL")
# What else these columns are called, without case, spaces, hyphens and underscores.
_OTHER_NAMES = {
    "SET": {"split", "subset", "partition"},
    "FILE": {"filename", "filepath", "path", "image", "imagename", "imagepath", "imagefile"},
    "LABEL": {"labels", "class", "classname", "category"},
}


class Row(NamedTuple):
    """A row: the number of its last line, and its cells. `split` is None without such a column."""

    line: int
    split: str | None
    file: str
    label: str


class _Layout(NamedTuple):
    """Where the columns of split, file and label are, if anywhere, and what lies around them."""

    positions: tuple[int | None, int, int | None]
    has_header: bool
    delimiter: str = ","


def open_table(path: str | Path) -> TextIO:
    """Return a CSV file, at a path or a URL, opened for reading. Raise OSError, UserError."""
    if is_remote(path):
        content: BinaryIO = io.BytesIO(read_url(str(path)))
    else:
        content = Path(path).open("rb")  # noqa: SIM115 the caller closes it
    return decode_table(content)


def decode_table(content: BinaryIO) -> TextIO:
    """Return a CSV file, open as bytes, as text, in the encoding that its byte order mark tells."""
    start = content.read(4)
    content.seek(0)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    return io.TextIOWrapper(content, encoding, "surrogateescape", newline="")


def read_rows(
    file: TextIO, path: str | Path, columns: Sequence[str] = (), *, needs_label: bool = True
) -> Iterator[Row]:
    """Yield the rows of an open CSV file from its beginning, except blank ones.

    Args:
        file: The open file, as `open_table` returns it.
        path: What to call it.
        columns: Names of the columns of set, file and label; of two, file and label; of one, file.
            None: SET, FILE and LABEL, or what else these are usually called.
        needs_label: Whether there must be a column of labels.

    Raises:
        DataError: The file can't be read, or a column is missing.
    """
    try:
        layout = _find_layout(file, path, columns, needs_label)
        file.seek(0)
        reader = csv.reader(file, delimiter=layout.delimiter)
        is_header = layout.has_header
        split, name, label = layout.positions
        for row in reader:
            if not any(row):
                continue
            if is_header:
                is_header = False
                continue
            try:
                yield Row(
                    reader.line_num,
                    None if split is None else row[split].strip(),
                    row[name].strip(),
                    "" if label is None else row[label].strip(),
                )
            except IndexError:
                raise DataError(f"{path}, line {reader.line_num}: has too few columns") from None
    except (OSError, csv.Error, UnicodeError) as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None


def _find_layout(
    file: TextIO, path: str | Path, columns: Sequence[str], needs_label: bool
) -> _Layout:
    if len(columns) > len(_COLUMNS) or (len(columns) == 1 and needs_label):
        raise DataError("csv_columns must name the columns of file and label, or set, file, label")
    first: list[str] = []
    for delimiter in DELIMITERS:
        file.seek(0)
        row = next(filter(any, csv.reader(file, delimiter=delimiter)), [])
        if layout := _read_layout(row, columns, needs_label):
            return layout._replace(delimiter=delimiter)
        first = max(first, row, key=len)
    if any("\0" in each for each in first):
        raise DataError(f"{path} is not text in UTF-8: save it as CSV in UTF-8")
    _, name, label = _names_of(columns)
    lacks_file = _find_column(first, name, "FILE") is None
    missing, columns = name if lacks_file else label, ", ".join(first) or "none"
    raise DataError(
        f"{path} has no column {missing!r} (it has: {columns}); name the columns by --csv_columns"
    )


def _names_of(columns: Sequence[str]) -> Sequence[str]:
    """Return the names of the columns of set, file and label; "" for a column not to look for."""
    if not columns:
        return _COLUMNS
    return ("", *columns, "")[:3] if len(columns) < 3 else columns


def _read_layout(row: list[str], columns: Sequence[str], needs_label: bool) -> _Layout | None:
    """Return the layout of a file from its first row, or None if columns are missing."""
    names = _names_of(columns)
    split, file, label = map(_find_column, [row] * 3, names, _COLUMNS if not columns else [""] * 3)
    if file is not None and (label is not None or not needs_label):
        return _Layout((split, file, label), True)
    if len(row) == 3 and split_meant(row[0]):
        return _Layout((0, 1, 2), False)
    # A list of images, or of images and labels.
    if row and len(row) <= 2 and row[0].strip().lower().endswith(IMAGE_SUFFIXES):
        label = 1 if len(row) == 2 else None
        return _Layout((None, 0, label), False) if label or not needs_label else None
    return None


def _find_column(header: list[str], name: str, kind: str) -> int | None:
    """Return the position of a column, by its name or, if `kind` is given, another usual one."""
    names = [each.strip().lower() for each in header]
    if name and name.lower() in names:
        return names.index(name.lower())
    usual = [re.sub("[ _-]", "", each) in _OTHER_NAMES.get(kind, ()) for each in names]
    # Of two such columns, nobody knows which.
    return usual.index(True) if sum(usual) == 1 else None
