"""Labeled files listed in a CSV file: a row has a file, its label and, optionally, its split."""

import logging
import os
import posixpath
import unicodedata
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import numpy as np

from library.dataset.locations import locate
from library.dataset.sources.base import TRAINING, LabeledFile, composed, split_meant
from library.dataset.sources.csv_rows import Row, open_table, read_rows
from library.dataset.sources.remote import RemoteFacts
from library.dataset.storage import is_remote
from library.errors import DataError, printable, reason_of
from library.logging import log_once
from library.messages import counted, listed

# Rows whose remote files are looked up together.
_BATCH = 4096

logger = logging.getLogger(__name__)


def find_in_table(
    table: str | Path, split: str = "", columns: Sequence[str] = (), label_separator: str = ""
) -> Iterator[LabeledFile]:
    """Yield the labeled files of a CSV file.

    Args:
        table: Path or URL of the CSV file. Its files are URLs, or paths relative to its folder.
        split: The split to yield, by any of its names (train, val, …); "" for all rows of a file
            that is not divided into splits.
        columns: Names of the columns of set, file and label, or of file and label; see `read_rows`.
        label_separator: If given, the data is multi-label: with "|", `cat|dog` is both classes,
            and an empty cell none. The rows of one file are joined.

    Raises:
        DataError: The file is missing or malformed, has no rows of the split, or contradicts
            itself.
    """
    facts, pending = RemoteFacts(), []
    try:
        with open_table(table) as file:
            rows = _TableRows(file, table, split, columns, label_separator)
            for name, label in rows.labeled():
                url = file_url(table, name)
                if url is None:
                    yield find_listed_file(Path(table).parent, name, label)
                    continue
                pending.append((name, label, url))
                if len(pending) == _BATCH:
                    yield from _remote_files(pending, facts)
                    pending = []
    except OSError as error:
        raise DataError(f"{table} can't be read: {reason_of(error)}") from None
    yield from _remote_files(pending, facts)


def file_url(table: str | Path, name: str) -> str | None:
    """Return the URL of a file that a CSV file lists, or None for a local file."""
    if is_remote(name):
        return name
    if not is_remote(table):
        return None
    protocol, _, path = str(table).partition("://")
    name = name.replace("\\", "/")
    # A leading slash means the table's folder too: a store has no other root.
    return f"{protocol}://{posixpath.normpath(f'{posixpath.dirname(path)}/{name}')}"


@dataclass(frozen=True)
class _TableRows:
    """The rows of a split, one for each file."""

    file: TextIO
    table: str | Path
    split: str
    columns: Sequence[str]
    label_separator: str

    def labeled(self) -> Iterator[tuple[str, str | tuple[str, ...]]]:
        """Yield (file, label) of each file; those with several rows come last."""
        repeated, is_mine = self._survey()
        held: dict[str, list[Row]] = {}
        is_empty = True
        for row in read_rows(self.file, self.table, self.columns):
            if is_mine[row.split]:
                is_empty = False
                if not row.file or not (row.label or self.label_separator):
                    raise DataError(f"{self._where(row)}: a file or a label is missing")
            if repeated and hash(_key(row.file)) in repeated:
                held.setdefault(_key(row.file), []).append(row)
            elif is_mine[row.split]:
                yield row.file, self._label_of(row)
        if is_empty:
            of_split = f" of the set {self.split!r}" if self.split else ""
            raise DataError(f"{self.table} has no rows{of_split}")
        self._log_crossing(held.values())
        mine = ([row for row in rows if is_mine[row.split]] for rows in held.values())
        yield from self._joined(filter(None, mine))

    def _survey(self) -> tuple[set[int], dict[str | None, bool]]:
        """Return the hashes of the files with several rows, and {set: is it of the split?}.

        Raises DataError for rows of several splits where one is wanted.

        A million files take 8 MB of memory, and their names would take 100.
        """
        hashes, sets = array("q"), dict[str | None, bool]()
        for row in read_rows(self.file, self.table, self.columns):
            hashes.append(hash(_key(row.file)))
            sets[row.split] = True
        if self.split and None in sets:
            raise DataError(
                f"{self.table} has no column of sets, so no set {self.split!r}: divide it by "
                "--split validation=0.1,test=0.1"
            )
        splits = {split for each in sets if each and (split := split_meant(each))}
        if not self.split and TRAINING in splits and len(splits) > 1:
            names = listed(sorted(filter(None, sets)))
            raise DataError(
                f"{self.table} has sets ({names}); convert each, such as --dataset_dir "
                f"{self.table}/{TRAINING}, or name other columns, --csv_columns FILE,LABEL"
            )
        values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
        is_mine = {
            each: not self.split or _split_of(each) == _split_of(self.split) for each in sets
        }
        return set(values[counts > 1].tolist()), is_mine

    def _joined(self, groups: Iterable[list[Row]]) -> Iterator[tuple[str, str | tuple[str, ...]]]:
        repeats = 0
        for rows in groups:
            repeats += len(rows) - 1
            first = rows[0]
            if self.label_separator:
                labels = {label for row in rows for label in self._label_of(row)}
                yield first.file, tuple(sorted(labels))
                continue
            if other := next(
                (row for row in rows if composed(row.label) != composed(first.label)), None
            ):
                both = f"{first.label!r} in line {first.line}, {other.label!r} in line {other.line}"
                raise DataError(
                    f"{self.table}: {printable(first.file)} is {both}: correct one, or allow "
                    "several classes by --label_separator"
                )
            yield first.file, first.label
        if repeats:
            how = "joined with the others of" if self.label_separator else "the same as others of"
            where = f"{self.table}/{self.split}" if self.split else self.table
            log_once(logger, f"{where}: {counted(repeats, 'row')} {how} the same file")

    def _log_crossing(self, groups: Collection[list[Row]]) -> None:
        """Log files that are in several splits: what is tested on them is no surprise."""
        crossing = [rows for rows in groups if len({_split_of(row.split) for row in rows}) > 1]
        if crossing:
            first = crossing[0][0]
            other = next(
                row for row in crossing[0] if _split_of(row.split) != _split_of(first.split)
            )
            files = counted(len(crossing), "file is", "files are")
            log_once(
                logger,
                f"{self.table}: {files} in several sets, such as {printable(first.file)} in line "
                f"{first.line} ({first.split}) and line {other.line} ({other.split})",
                logging.WARNING,
            )

    def _label_of(self, row: Row) -> str | tuple[str, ...]:
        """Return the class, or of multi-label data all classes, each once, in order."""
        if not self.label_separator:
            return row.label
        labels = (
            {each.strip() for each in row.label.split(self.label_separator)} if row.label else set()
        )
        if "" in labels:
            raise DataError(f"{self._where(row)}: {row.label!r} has an empty class")
        return tuple(sorted(labels))

    def _where(self, row: Row) -> str:
        return f"{self.table}, line {row.line}"


def _key(file: str) -> str:
    """Return what is the same for all spellings of a file's path.

    Not for é in one and in two characters: both files may exist.
    """
    return file.replace("\\", "/").removeprefix("./")


@lru_cache(maxsize=64)
def _split_of(cell: str | None) -> str:
    return split_meant(cell or "") or (cell or "").lower()


def find_listed_file(folder: Path, name: str, label: str | tuple[str, ...]) -> LabeledFile:
    """Return the file of a CSV file's row, whose path is relative to the CSV file's folder.

    Args:
        folder: The CSV file's folder.
        name: The path in the row.
        label: The class or classes.
    """
    facts = []
    for spelling in _spellings(name):
        facts.append(locate(folder / spelling))
        if facts[-1][1]:  # It has a time, so it exists.
            return LabeledFile(spelling, label, *facts[-1])
    return LabeledFile(name, label, *facts[0])


def _spellings(name: str) -> Iterator[str]:
    """Yield a path as it is written, and as another system may have stored it."""
    yield name
    if "\\" in name:
        name = name.replace("\\", "/")
        yield name
    if not name.isascii():
        # macOS decomposes é, and most archives of its files keep that. In an 8-bit locale, names
        # on disk may be UTF-8 even so.
        for form in ("NFC", "NFD"):
            spelling = unicodedata.normalize(form, name)
            yield from (spelling, os.fsdecode(spelling.encode("utf-8", "surrogateescape")))


def _remote_files(
    rows: list[tuple[str, str | tuple[str, ...], str]], facts: RemoteFacts
) -> Iterator[LabeledFile]:
    """Yield the labeled files of (file, label, URL) rows."""
    found = facts.find([url for _, _, url in rows])
    for (name, label, _), file in zip(rows, found, strict=True):
        yield LabeledFile(name, label, *file)
