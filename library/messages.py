"""Words for messages: counts with their nouns, near spellings, and values as messages show them."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar

from library.errors import SettingsError, printable

_Value = TypeVar("_Value")
# Comparing takes time with the product of the lengths, and a hostile file chooses the names.
_MAX_CHARACTERS = 80
_MAX_NAMES = 300
# More names would make a message unreadable.
_MAX_LISTED = 5
# The beginning of a name must be this long to be preferred to a near spelling.
_MIN_PREFIX = 3


class ChoiceError(SettingsError):
    """A name is not one of the known names."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as `1 image`, `0 images` or `4,000 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def counted_classes(number: int) -> str:
    """Return `1 class`, `10 classes`."""
    return counted(number, "class", "classes")


def counted_present(counts: Mapping[str, int]) -> str:
    """Return `3 classes`, or `1 of 3 classes; none of b, c` of those with a count of 0."""
    classes = counted_classes(len(counts))
    if lacking := [name for name, count in counts.items() if not count]:
        return f"{len(counts) - len(lacking):,} of {classes}; none of {listed(lacking)}"
    return classes


def listed(names: Collection[str]) -> str:
    """Return names on one line, shortened if they are many or long: `a, b, … (12 in all)`."""
    first = [printable(each) for each in islice(names, _MAX_LISTED)]
    text = ", ".join(each if len(each) <= _MAX_CHARACTERS else f"{each[:40]}…" for each in first)
    return f"{text}, … ({len(names):,} in all)" if len(names) > _MAX_LISTED else text


def choose(kind: str, name: str, known: Mapping[str, _Value]) -> _Value:
    """Return known[name]. Raise ChoiceError, which suggests a near spelling, if it is missing."""
    if name in known:
        return known[name]
    raise ChoiceError(unknown_name(kind, name, known))


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """Return a message about an unknown name, with a near spelling and all known names."""
    names = ", ".join(sorted(known)) or "none"
    return f"unknown {kind} {name!r}{did_you_mean(name, known)} (known: {names})"


def did_you_mean(name: object, known: Iterable[str], otherwise: str = "") -> str:
    """Return what follows an unknown name: `; did you mean 'x'?`, or `; ` and other advice."""
    if near := nearest(name, known):
        return f"; did you mean {near!r}?"
    return f"; {otherwise}" if otherwise else ""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most probably means, or None.

    That is the first one that begins with it, if it is long enough, or else the nearest spelling.
    """
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_CHARACTERS:
        return None
    names = [each for each in known if len(each) <= _MAX_CHARACTERS][:_MAX_NAMES]
    first = min((each for each in names if each.startswith(name)), default=None)
    if first and len(name.lstrip("-")) >= _MIN_PREFIX:
        return first
    return next(iter(difflib.get_close_matches(name, names, n=1)), first)


def shown(value: Any) -> str:
    """Return a value as a message shows it: as in YAML, on one line and not too long."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "nested keys"
    if isinstance(value, (list, tuple)):
        first = ", ".join("[…]" if isinstance(each, list) else shown(each) for each in value[:4])
        return f"the list [{first}{', …' if len(value) > 4 else ''}]"
    if isinstance(value, str) and len(value) > _MAX_CHARACTERS:
        return f"{value[:40]!r}… of {len(value)} characters"
    return repr(value)
