"""--help: commands and options in groups, with the values that hold now, fitted to the terminal."""

import shutil
import textwrap

from library.configuration.scalars import yaml_value

MIN_COLUMNS, MAX_COLUMNS = 80, 100
LEFT_COLUMNS = 36
MAX_VALUE_CHARACTERS = 36
MAX_CHOICES_CHARACTERS = 24
WRITING = (
    "Hyphens may stand for underscores, and --name=value for --name value. A list is written with "
    "commas (a,b), no value as none, and a flag that a file turned on is turned off by --no-name."
)


def terminal_columns():
    """Return the width to fit text to: the terminal's, within reason."""
    columns = shutil.get_terminal_size((MAX_COLUMNS, 24)).columns
    return max(MIN_COLUMNS, min(columns, MAX_COLUMNS))


def help_text(program, about, commands, keys, values):
    """Return the text of --help.

    `about` is a paragraph or a sequence of them; `values` are {key: Value}: what holds if nothing
    else is said.
    """
    columns = terminal_columns()
    lines = [f"usage: {program}{' [command]' if commands else ''} [options]", ""]
    for paragraph in [about] if isinstance(about, str) else about:
        lines += [*textwrap.wrap(paragraph, columns, break_on_hyphens=False), ""] * bool(paragraph)
    if commands:
        lines += ["Commands", *_commands(commands, columns), ""]
    for group in dict.fromkeys(key.group for key in keys):
        lines.append(group)
        for key in keys:
            if key.group == group:
                lines += _row(_option(key), _meaning(key, values[key.name].value), columns)
        lines.append("")
    lines += ["Help", *_row("--help, -h", "print this text, then stop", columns), ""]
    lines += textwrap.wrap(WRITING, columns, break_on_hyphens=False)
    return "\n".join(lines)


def _commands(commands, columns):
    lines = []
    default = next(iter(commands))
    for name, each in commands.items():
        summary = each.summary + (" [default]" if name == default else "")
        lines += _row(f"{name} {each.arguments}".strip(), summary, columns)
    return lines


def _option(key):
    short = f", -{key.short}" if key.short else ""
    if key.is_flag:
        return f"--{key.name if key.is_request else f'[no-]{key.name}'}{short}"
    return f"--{key.name}{short} {placeholder(key)}"


def placeholder(key):
    """Return what stands for the value of an option: its choices if few, or a word for its kind."""
    if key.choices:
        choices = "|".join(str(each) for each in key.choices)
        return choices if len(choices) <= MAX_CHOICES_CHARACTERS else "WORD"
    return {int: "N", float: "X", str: "TEXT"}.get(key.base, "A,B")


def _meaning(key, value):
    if key.is_request:
        return key.meaning
    meaning = key.meaning
    if key.also:
        meaning += f"; also --{', --'.join(key.also)}"
    if placeholder(key) == "WORD":
        meaning += f": {', '.join(str(each) for each in key.choices)}"
    follows = value is None and key.follows
    return f"{meaning} [{key.followed_words if follows else value_in_words(value)}]"


def value_in_words(value):
    """Return a value for people to read: none, without quotes, and not too long."""
    if value is None or value == ():
        return "none"
    if isinstance(value, float):
        text = repr(value).removesuffix(".0")
    elif isinstance(value, tuple):
        text = ",".join(value)
    else:
        text = value if isinstance(value, str) else yaml_value(value)
    text = "".join(each if each.isprintable() else "?" for each in text)
    if len(text) > MAX_VALUE_CHARACTERS:
        half = MAX_VALUE_CHARACTERS // 2
        text = f"{text[: half - 1]}…{text[-half:]}"
    return text


def _row(left, right, columns):
    """Return the lines of one entry: left the option, right its meaning, wrapped."""
    indent = " " * LEFT_COLUMNS
    wrapped = textwrap.wrap(right, columns - LEFT_COLUMNS, break_on_hyphens=False)
    first = f"  {left}"
    if len(first) > LEFT_COLUMNS - 2:
        return [first, *(indent + each for each in wrapped)]
    return [first.ljust(LEFT_COLUMNS) + wrapped[0], *(indent + each for each in wrapped[1:])]


NO_BREAK = "\u00a0"


def set_list(sets, chosen):
    """Return the lines for one file's Sets as one text; the set `chosen` has a star."""
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
