"""Attributes of images become groups: numbers are cut at their quartiles, words are groups.

They are measured (image_properties.py), or come from a CSV file of the user's: a column `file`,
with the names of images as converted, and a column per attribute.
"""

import csv
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from library.dataset.sources.csv_rows import DELIMITERS, open_table
from library.errors import DataError, printable, reason_of
from library.messages import counted

logger = logging.getLogger(__name__)

NO_VALUE, OTHERS = "(no value)", "(other)"
_FILE = "file"
# Fewer different numbers, such as years or 0 and 1, are groups themselves.
_MIN_NUMBERS = 6
_BINS = 4
# Only the most frequent words are groups of their own.
_MAX_WORDS = 20

# File name → attribute → value.
Table = dict[str, dict[str, str]]
# Which images have a value: bool (n,), by a name of the value.
Groups = dict[str, np.ndarray]


def read_attributes(path: str | Path) -> Table:
    """Return the rows of a CSV file of attributes.

    Raises:
        DataError: It can't be read, has no column `file` or no other, or contradicts itself.
    """
    table: Table = {}
    try:
        with open_table(path) as file:
            for delimiter in DELIMITERS:
                file.seek(0)
                head = [each.strip() for each in next(csv.reader(file, delimiter=delimiter), [])]
                if _FILE in head:
                    break
            else:
                raise DataError(f"{path} has no column {_FILE!r} in its first line")
            titles = [each for each in head if each]
            if len(titles) < 2 or len({*titles}) < len(titles):
                raise DataError(f"{path} needs columns beside {_FILE!r}, each of another name")
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for row in filter(any, reader):
                where = f"{path}, line {reader.line_num + 1}"
                if len(row) != len(head):
                    raise DataError(f"{where} has {len(row)} cells, the first line {len(head)}")
                cells = dict(zip(head, (each.strip() for each in row), strict=True))
                cells.pop("", None)
                name = cells.pop(_FILE)
                if table.setdefault(name, cells) != cells:
                    raise DataError(f"{where}: {name!r} has other values in an earlier line")
    except (OSError, csv.Error, UnicodeError) as error:
        raise DataError(f"{path} can't be read: {reason_of(error)}") from None
    return table


def match_attributes(table: Table, names: Sequence[str], path: str | Path) -> dict[str, list[str]]:
    """Return the values of images: attribute → a text per image, empty if there is none.

    Files that are no images of the split, and images without a row, are named in one line.

    Args:
        table: As `read_attributes` returns it.
        names: The images' file names.
        path: What to call the table.

    Raises:
        DataError: No image has a row.
    """
    unknown, missing = sorted(table.keys() - {*names}), sorted({*names} - table.keys())
    if not table.keys() & {*names}:
        example = f"; names are those of conversion, such as {names[0]!r}"
        raise DataError(f"{path} names no image of the split{example}")
    parts = (
        (counted(len(unknown), "row"), "not in the split", unknown),
        (counted(len(missing), "image"), "without a row", missing),
    )
    words = [f"{count} {what}, such as {printable(each[0])}" for count, what, each in parts if each]
    if words:
        logger.log(logging.WARNING if missing else logging.INFO, "%s: %s", path, "; ".join(words))
    attributes = dict.fromkeys(key for row in table.values() for key in row)
    rows = [table.get(name, {}) for name in names]
    return {key: [row.get(key, "") for row in rows] for key in attributes}


def make_groups(name: str, values: Sequence[str] | np.ndarray) -> Groups:
    """Return the images with each value of an attribute.

    Args:
        name: The attribute's name, for the log.
        values: A text or a number for each image; empty, or NaN: no value.

    Returns:
        The groups that are neither empty nor all images; none, with a line in the log, if all
        images have the same value, or nearly each another one.
    """
    numbers = _to_numbers(values)
    if numbers is not None and len(np.unique(numbers[~np.isnan(numbers)])) >= _MIN_NUMBERS:
        groups = dict(_cut(numbers))
    else:
        groups = _group_words(name, values)
    is_whole = any(each.all() for each in groups.values())
    groups = {key: each for key, each in groups.items() if 0 < each.sum() < len(each)}
    if is_whole:
        logger.info("no slices by %s: it is the same for all images", printable(name))
    return groups


def _to_numbers(values: Sequence[str] | np.ndarray) -> np.ndarray | None:
    """Return float64 (n,), NaN for no value, or None if there are words among them."""
    try:
        numbers = np.array([float(each) if each != "" else math.nan for each in values])
    except ValueError:
        return None
    return numbers if not np.isinf(numbers).any() else None


def _cut(numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the images between quartiles, called by the least and the greatest of their numbers."""
    is_known = ~np.isnan(numbers)
    edges = np.unique(np.quantile(numbers[is_known], np.arange(1, _BINS) / _BINS))
    bins = np.searchsorted(edges, numbers, "left")
    for each in range(len(edges) + 1):
        chosen = is_known & (bins == each)
        if chosen.any():
            own = numbers[chosen]
            ends = dict.fromkeys((_short(own.min()), _short(own.max())))
            yield " to ".join(ends), chosen
    yield NO_VALUE, ~is_known


def _group_words(name: str, values: Sequence[str] | np.ndarray) -> Groups:
    words = np.array([_to_word(each) for each in values], object)
    counts = Counter(words.tolist())
    if len(counts) > max(_MAX_WORDS, len(words) // 2):
        logger.info("no slices by %s: nearly each image has another value", printable(name))
        return {}
    frequent = [word for word, _ in counts.most_common(_MAX_WORDS)]
    groups = {word: words == word for word in frequent}
    return {**groups, OTHERS: ~np.isin(words, frequent)} if counts.keys() - {*frequent} else groups


def _short(number: float) -> str:
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:.0f}"


def _to_word(value: str | float) -> str:
    if isinstance(value, str):
        return value or NO_VALUE
    return NO_VALUE if math.isnan(value) else f"{value:g}"
