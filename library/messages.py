"""Words for messages: counts with their nouns, and the nearest known name for a misspelled one."""

import difflib

from library.errors import SettingsError


class ChoiceError(SettingsError):
    """A name that is not among the known ones."""


def nearest(name, known):
    """Return the known name closest in spelling to `name`, or None if none is close."""
    near = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    return near[0] if near else None


def unknown_name(kind, name, known):
    """Return the words for an unknown name: what it is, nearest spelling, and all known names."""
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near else ""
    names = ", ".join(sorted(str(each) for each in known)) or "none"
    return f"unknown {kind} {name!r}{hint} (known: {names})"


def choose(kind, name, known):
    """Return known[name]. Raises ChoiceError, naming the nearest spelling, if there is none."""
    if name in known:
        return known[name]
    raise ChoiceError(unknown_name(kind, name, known))


def counted(number, one, many=None):
    """Give `1 image`, `0 images`, `4,000 images`; `many` where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def counted_classes(number):
    """Give `1 class`, `10 classes`."""
    return counted(number, "class", "classes")


# Comparing takes time with the product of the lengths, and a hostile file chooses the names.
MAX_CHARACTERS = 80
MAX_NAMES = 300


def meant(name, known):
    """Return the known name that `name` most probably stands for, or None.

    That is the first of the known names that begins with it, if that says enough, or else the
    nearest spelling.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_CHARACTERS:
        return None
    names = [each for each in known if len(each) <= MAX_CHARACTERS][:MAX_NAMES]
    longer = sorted(each for each in names if each.startswith(name))
    says_enough = len(name.lstrip("-")) >= 3
    first = longer[0] if longer else None
    return (says_enough and first) or nearest(name, names) or first


def did_you_mean(name, known, otherwise=""):
    """Return the words that follow an unknown name: `; did you mean 'x'?`, or what else helps."""
    near = meant(name, known)
    if near:
        return f"; did you mean {near!r}?"
    return f"; {otherwise}" if otherwise else ""


def shown(value):
    """Return a value as an error message shows it: as YAML has it, on one line and not too long."""
    words = {True: "true", False: "false"}
    if value is None:
        return "none"
    if isinstance(value, bool):
        return words[value]
    if isinstance(value, dict):
        return "keys of its own"
    if isinstance(value, (list, tuple)):
        first = ", ".join("[…]" if isinstance(each, list) else shown(each) for each in value[:4])
        return f"the list [{first}{', …' if len(value) > 4 else ''}]"
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        return f"{value[:40]!r}… of {len(value)} characters"
    return repr(value)
