"""--list_sets: each set of a file, its line, what it inherits, and what it changes."""

import textwrap

from library.configuration.help_text import terminal_columns
from library.configuration.scalars import yaml_value

NO_BREAK = "\u00a0"


def set_list(sets, chosen):
    """Give the lines for one file's Sets as one text; the set `chosen` has a star."""
    lines = [sets.file]
    width = max((len(name) for name in sets.names), default=0)
    for name in sets.names:
        star = "*" if name == chosen else " "
        parents = ", ".join(sets.parents(name))
        inherits = f", inherits {parents}" if parents else ""
        lines.append(f"{star} {name.ljust(width)}  line {sets.line(name)}{inherits}")
        lines += _changes(sets.own(name))
    return "\n".join(lines)


def _changes(values):
    # A no-break space keeps a key and its value on one line; none is left in the values' text.
    pairs = [f"{key}: {yaml_value(value)}".replace(" ", NO_BREAK) for key, value in values.items()]
    text = textwrap.fill(
        ", ".join(pairs) or "nothing of its own",
        terminal_columns(),
        initial_indent=" " * 6,
        subsequent_indent=" " * 6,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [text.replace(NO_BREAK, " ")]
