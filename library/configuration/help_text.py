"""--help: commands and options in groups, with the values that hold now, fitted to the terminal."""

import shutil
import textwrap

from library.configuration.printing import yaml_value

MIN_COLUMNS, MAX_COLUMNS = 80, 100
OPTION_COLUMNS = 38


def help_text(program, about, commands, keys, values, notes=()):
    """Give the text of --help. `values` are {key: Value}: what holds if nothing else is said."""
    columns = shutil.get_terminal_size((MAX_COLUMNS, 24)).columns
    columns = max(MIN_COLUMNS, min(columns, MAX_COLUMNS))
    command = " [command]" if commands else ""
    lines = [f"usage: {program}{command} [options]", ""]
    for paragraph in (about, *notes):
        lines += [*textwrap.wrap(paragraph, columns), ""] if paragraph else []
    if commands:
        lines += ["commands", *_commands(commands, columns), ""]
    for group in dict.fromkeys(key.group for key in keys):
        lines.append(group)
        for key in keys:
            if key.group == group:
                lines += _row(_option(key), _meaning(key, values.get(key.name)), columns)
        lines.append("")
    return "\n".join(lines)


def _commands(commands, columns):
    lines = []
    for each in commands:
        default = " (the default)" if each is commands[0] else ""
        lines += _row(f"{each.name} {each.followed_by}".strip(), each.meaning + default, columns)
    return lines


def _option(key):
    long = f"--[no-]{key.name}" if key.is_flag else f"--{key.name}"
    short = f", -{key.short}" if key.short else ""
    return f"{long}{short}{'' if key.is_flag else ' ' + _placeholder(key)}"


def _placeholder(key):
    if key.choices:
        return "|".join(str(each) for each in key.choices)
    return {int: "N", float: "X", str: "TEXT"}.get(key.base, "A,B")


def _meaning(key, value):
    if value is None:
        return key.meaning
    if value.value is None and key.follows:
        return f"{key.meaning} [{key.follows.replace('{', '').replace('}', '')}]"
    text = "none" if value.value in (None, ()) else yaml_value(value.value)
    return f"{key.meaning} [{text}]"


def _row(left, right, columns):
    indent = " " * (OPTION_COLUMNS + 2)
    wrapped = textwrap.wrap(right, columns - len(indent), break_on_hyphens=False) or [""]
    first = f"  {left}"
    if len(first) > OPTION_COLUMNS:
        return [first, *(indent + each for each in wrapped)]
    return [first.ljust(len(indent)) + wrapped[0], *(indent + each for each in wrapped[1:])]
