"""Corrections of labels: a CSV file whose rows relabel or drop images; the images stay as they are.

A row finds its image by file name and, if there is none or it has other content, by the SHA-256 of
the content: so images that were renamed or renumbered are found.
"""

import csv
import hashlib
import io
import logging
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from library.dataset.locations import Location
from library.dataset.sources.base import NO_CLASS, LabeledFile, composed
from library.dataset.sources.class_names import normalize_class
from library.dataset.sources.csv_rows import DELIMITERS, decode_table
from library.errors import DataError, first_line, printable, reason_of
from library.files import read_regular_file, write_file
from library.messages import counted, did_you_mean, listed

COLUMNS = ("file", "sha256", "action", "label", "new_label", "reason", "date")
RELABEL, DROP, KEEP = ACTIONS = ("relabel", "drop", "keep")
# Between the classes of a multi-label image.
SEPARATOR = "|"
_SHA256 = re.compile("[0-9a-f]{64}|")

logger = logging.getLogger(__name__)


class Correction(NamedTuple):
    """A row, after the number of its last line, and its cells in other columns.

    The old label, the reason and the date are for people; nothing is decided by them.
    """

    line: int
    file: str
    sha256: str
    action: str
    label: str
    new_label: str
    reason: str
    date: str
    others: Mapping[str, str] = MappingProxyType({})


class _Match(NamedTuple):
    """A row with its file, and the new label; None: the file is dropped."""

    row: Correction
    file: LabeledFile
    label: str | tuple[str, ...] | None


# What is wrong with which line.
_Problem = tuple[int, str]


def read_corrections(path: str | Path) -> tuple[list[Correction], str]:
    """Return the rows of a CSV file with the columns COLUMNS, in any order, and its SHA-256.

    Only `file` and `action` must be there. A row that repeats another one is left out.

    Raises:
        DataError: The file can't be read, or rows make no sense or contradict each other.
    """
    try:
        content = read_regular_file(path)
        rows = _parse(decode_table(io.BytesIO(content)).read(), path)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    problems: list[_Problem] = []
    firsts: dict[str, Correction] = {}
    for row in rows:
        if problem := _find_problem(row):
            problems.append((row.line, problem))
            continue
        first = firsts.setdefault(composed(row.file) or row.sha256, row)
        has_other_content = "" != first.sha256 != row.sha256 != ""
        if has_other_content or (first.action, first.new_label) != (row.action, row.new_label):
            text = f"{printable(row.file or row.sha256)} contradicts line {first.line}: keep one"
            problems.append((row.line, text))
    _raise_problems(path, problems)
    return list(firsts.values()), hashlib.sha256(content).hexdigest()


def _parse(text: str, path: str | Path) -> Iterator[Correction]:
    """Yield the rows of a CSV file, blank ones left out."""
    found: list[str] = []
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        header = [each.strip().lower() for each in next(filter(any, reader), [])]
        if {"file", "action"} <= set(header):
            break
        found = max(found, header, key=len)
    else:
        raise DataError(
            f"{path} has no columns file and action (it has: {listed(found) or 'none'}); the "
            f"columns of corrections are {', '.join(COLUMNS)}"
        )
    for cells in filter(any, reader):
        row = dict.fromkeys(COLUMNS, "") | dict(zip(header, cells, strict=False))
        # A file name may begin or end with a space.
        row |= {each: row[each].strip() for each in COLUMNS if each != "file"}
        row |= {each: row[each].lower() for each in ("sha256", "action")}
        known = {each: row.pop(each) for each in COLUMNS}
        yield Correction(reader.line_num, **known, others=row)


def write_corrections(path: str | Path, rows: Sequence[Correction] = ()) -> None:
    """Write rows below a header, whole or not at all. Raises OSError."""
    others = list(dict.fromkeys(name for row in rows for name in row.others))
    text = io.StringIO(newline="")
    # The lines end as the module's default does, because in others it leaves \r unquoted.
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, *others])
    writer.writerows([*row[1:-1], *(row.others.get(each, "") for each in others)] for row in rows)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _find_problem(row: Correction) -> str | None:
    """Return what is wrong with a row by itself, or None."""
    if row.action not in ACTIONS:
        advice = did_you_mean(row.action, ACTIONS, f"write {', '.join(ACTIONS)}")
        return f"unknown action {row.action!r}{advice}"
    if not _SHA256.fullmatch(row.sha256):
        return f"the SHA-256 {row.sha256!r} is not 64 hexadecimal digits"
    if not row.file and not row.sha256:
        return "names no file: write its name or its SHA-256"
    if row.new_label and row.action != RELABEL:
        return f"has the action {row.action}, and a new label: write {RELABEL}, or no new label"
    return None


def _raise_problems(path: str | Path, problems: Collection[_Problem]) -> None:
    """Raise DataError with the first problem and the lines of the others, if there are any."""
    if not problems:
        return
    (line, text), *others = sorted(problems)
    more = f" (also wrong: lines {listed([str(each) for each, _ in others])})" if others else ""
    raise DataError(f"{path}, line {line}: {text}{more}")


class Corrections:
    """The corrections of a CSV file, applied to a source.

    Args:
        path: Path of the CSV file, as `read_corrections` takes it.

    Attributes:
        sha256: Hash of the CSV file.
        class_counts: Images per class of the whole source as corrected, once `apply` has begun.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        rows, self.sha256 = read_corrections(path)
        self._names = {row.file for row in rows}
        # A decision to keep an image changes nothing, even if the image is gone.
        self._rows = [row for row in rows if row.action != KEEP]
        self._matches: dict[str, _Match] | None = None
        self._applied: dict[str, _Match] = {}
        self._known: set[str] = set()
        self.class_counts: Counter[str] = Counter()

    def apply(
        self, files: Iterable[LabeledFile], find_all: Callable[[], Iterable[LabeledFile]]
    ) -> Iterator[LabeledFile]:
        """Yield files with corrected labels, dropped ones left out.

        Args:
            files: The files of a split.
            find_all: Returns the files of the whole source, among which each row has its own.

        Raises:
            DataError: A row finds no file, or several, or one that was replaced meanwhile.
        """
        if self._matches is None:
            self._matches = self._match(find_all)
        self._applied = {}
        for file in files:
            match = self._matches.get(file.name)
            if match is None:
                yield file
                continue
            if file.name in self._applied:
                text = f"several images have the name {printable(file.name)}: rename them"
                _raise_problems(self.path, [(match.row.line, text)])
            self._applied[file.name] = match
            if match.label is not None:
                yield file._replace(label=match.label)

    def check_classes(self, fixed: Iterable[str] = ()) -> None:
        """Raise DataError if a new label is not a class that images have, uncorrected.

        Args:
            fixed: Classes that are known whether or not images have them.
        """
        known = sorted(self._known.union(fixed))
        problems = []
        for row, _, label in (self._matches or {}).values():
            for name in _labels_of(label):
                if name not in known:
                    advice = did_you_mean(name, known, f"it must be one of {listed(known)}")
                    problems.append((row.line, f"unknown class {name!r}{advice}"))
        _raise_problems(self.path, problems)

    def find_lost(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the images in a manifest's settings that were corrected, and have no row now."""
        rows = (settings.get("corrections") or {}).get("rows", ())
        known = self._names.union(self._matches or ())
        return [row["file"] for row in rows if row["file"] not in known]

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest records: what was corrected in the split, when and why."""
        rows = [
            {
                "file": file.name,
                "action": row.action,
                "label": SEPARATOR.join(file.labels),
                "new_label": SEPARATOR.join(_labels_of(label)),
                "reason": row.reason,
                "date": row.date,
            }
            for row, file, label in sorted(self._applied.values(), key=lambda each: each.row.line)
            if label != file.label
        ]
        dropped = sum(row["action"] == DROP for row in rows)
        counts = {"relabeled": len(rows) - dropped, "dropped": dropped}
        return {"file": str(self.path), "sha256": self.sha256, **counts, "rows": rows}

    def _match(self, find_all: Callable[[], Iterable[LabeledFile]]) -> dict[str, _Match]:
        """Return {file name: match}, and count the classes."""
        finder = _Finder(self._rows)
        self.class_counts = finder.match_names(find_all())
        self._known = set(self.class_counts) - {NO_CLASS}
        finder.match_contents(find_all)
        problems, matches = list(finder.problems), dict[str, _Match]()
        for row, file in finder.found:
            try:
                match = _Match(row, file, _new_label(row, file))
            except DataError as error:
                problems.append((row.line, first_line(error)))
                continue
            if matches.setdefault(file.name, match).label != match.label:
                line = matches[file.name].row.line
                text = f"contradicts line {line}: both have the content of {printable(file.name)}"
                problems.append((row.line, text))
        _raise_problems(self.path, problems)
        for _, file, label in matches.values():
            self.class_counts.subtract(file.labels)
            self.class_counts.update(_labels_of(label))
        changes = [each.label for each in matches.values() if each.label != each.file.label]
        dropped = changes.count(None)
        images = counted(len(changes) - dropped, "image")
        logger.info(f"{self.path}: {images} to relabel, {dropped:,} to drop")
        if gone := sorted(self._known - set(+self.class_counts)):
            logger.warning(f"{self.path}: no image of {listed(gone)} is left")
        return matches


class _Finder:
    """Finds the file of each row, by name and then by content."""

    def __init__(self, rows: Collection[Correction]) -> None:
        self._rows = rows
        self.found: list[tuple[Correction, LabeledFile]] = []
        self.problems: list[_Problem] = []
        # Lines whose name a file has; by line, a name that ends like that of the row, or the other
        # way around.
        self._named: set[int] = set()
        self._similar: dict[int, str] = {}
        self._example = ""

    def match_names(self, files: Iterable[LabeledFile]) -> Counter[str]:
        """Find files by name. Return the number of files per class."""
        rows = {composed(row.file): row for row in self._rows if row.file}
        last_parts: dict[str, list[Correction]] = {}
        for row in rows.values():
            last_parts.setdefault(posixpath.basename(composed(row.file)), []).append(row)
        counts: Counter[str] = Counter()
        for file in files:
            counts.update(file.labels)
            self._example = self._example or file.name
            name = composed(file.name)
            if found := rows.get(name):
                self._named.add(found.line)
                if not found.sha256 or hash_content(file.location) == found.sha256:
                    self.found.append((found, file))
            for other in last_parts.get(posixpath.basename(name), ()):
                if f"/{name}".endswith(f"/{other.file}") or f"/{other.file}".endswith(f"/{name}"):
                    self._similar[other.line] = file.name
        return counts

    def match_contents(self, find_all: Callable[[], Iterable[LabeledFile]]) -> None:
        """Find files by content for all other rows, and explain what is not found."""
        lines, names = {row.line for row, _ in self.found}, {file.name for _, file in self.found}
        missing = [row for row in self._rows if row.line not in lines]
        contents: dict[str | None, list[LabeledFile]] = {
            row.sha256: [] for row in missing if row.sha256
        }
        if contents:
            logger.info(f"looking for {counted(len(contents), 'image')} by content")
            for file in find_all():
                if file.name not in names and (digest := hash_content(file.location)) in contents:
                    contents[digest].append(file)
        for row in missing:
            match contents.get(row.sha256, ()):
                case [file]:
                    self.found.append((row, file))
                case found:
                    self.problems.append((row.line, self._explain(row, found)))

    def _explain(self, row: Correction, found: Collection[LabeledFile]) -> str:
        """Return why a row has no file, and what to do."""
        name = printable(row.file or row.sha256)
        if found:
            names = listed([file.name for file in found])
            return f"{name} is the content of several files ({names}): name one of them"
        if row.line in self._named:
            return (
                f"{name} was replaced: its SHA-256 is not that of the row; review it again, or "
                "remove the row"
            )
        advice = f"names are relative to the source, as {printable(self._example)} is"
        if similar := self._similar.get(row.line):
            advice = f"did you mean {printable(similar)}?"
        return f"there is no image {name}, by name or by content; {advice}"


def hash_content(location: Location) -> str | None:
    """Return the SHA-256 of a file's content, or None if it can't be read."""
    try:
        return hashlib.sha256(location.read()).hexdigest()
    except (OSError, ValueError):
        return None


def _new_label(row: Correction, file: LabeledFile) -> str | tuple[str, ...] | None:
    """Return a file's corrected label, or None to drop it. Raise DataError if it can't have it."""
    if row.action == DROP:
        return None
    if not isinstance(file.label, str):
        names = row.new_label.split(SEPARATOR) if row.new_label else []
        return tuple(sorted(set(map(normalize_class, names))))
    if file.label == NO_CLASS:
        raise DataError(f"{printable(file.name)} has no class: move it into a class folder")
    if not row.new_label:
        raise DataError(f"the new label of {printable(file.name)} is missing")
    return normalize_class(row.new_label)


def _labels_of(label: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the classes in a corrected label."""
    return (label,) if isinstance(label, str) else label or ()
