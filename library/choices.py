"""Look a name up, or say which names there are and which is nearest."""

import difflib

from library.errors import SettingsError


class ChoiceError(SettingsError):
    """A name that is not among the known ones."""


def nearest(name, known):
    """Give the known name closest in spelling to `name`, or None if none is close."""
    near = difflib.get_close_matches(str(name), [str(each) for each in known], n=1)
    return near[0] if near else None


def unknown(kind, name, known):
    """Give the words for an unknown name: what it is, the nearest spelling, and all known names."""
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near else ""
    names = ", ".join(sorted(str(each) for each in known)) or "none"
    return f"unknown {kind} {name!r}{hint} (known: {names})"


def choose(kind, name, known):
    """Give known[name]. Raises ChoiceError, naming the nearest spelling, if there is none."""
    if name in known:
        return known[name]
    raise ChoiceError(unknown(kind, name, known))
