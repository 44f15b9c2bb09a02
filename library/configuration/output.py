"""Keys and values for people: --help, YAML to run from, the reference, JSON schemas."""

import shutil
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from library.configuration.command_line import Program
from library.configuration.schema import Key, Keys, Value, keys_of
from library.configuration.yaml_parser import to_yaml

MIN_COLUMNS, MAX_COLUMNS = 80, 100
LEFT_COLUMNS = 36
MAX_VALUE_CHARACTERS = 36
MAX_CHOICES_CHARACTERS = 24
# In a YAML file, a value longer than this pushes its own comment to the right, not every comment.
COMMENT_COLUMN = 48
_SYNTAX = (
    "Hyphens and underscores are equivalent, as are --name value and --name=value. Separate the "
    "items of a list with commas (a,b). Write none for no value, and --no-name to turn off a flag "
    "that a file turns on."
)


def _groups(keys: Iterable[Key]) -> dict[str, list[Key]]:
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.heading, []).append(key)
    return groups


def terminal_columns() -> int:
    """Return the width to fit text to: the terminal's, within reason."""
    columns = shutil.get_terminal_size((MAX_COLUMNS, 24)).columns
    return max(MIN_COLUMNS, min(columns, MAX_COLUMNS))


def help_text(
    program: Program, keys: Iterable[Key], values: Mapping[str, Value], note: str = ""
) -> str:
    """Return the text of --help, fitted to the terminal.

    Args:
        program: The program, its description and its commands.
        keys: All options.
        values: The values in effect, to show in brackets.
        note: What to say of these values.
    """
    columns = terminal_columns()
    commands = program.commands
    lines = [f"usage: {program.name}{' [command]' if commands else ''} [options]", ""]
    for paragraph in filter(None, (program.about, note)):
        lines += [*textwrap.wrap(paragraph, columns, break_on_hyphens=False), ""]
    if commands:
        lines.append("Commands")
        for name, each in commands.items():
            is_default = name == next(iter(commands))
            summary = each.summary + " [default]" * is_default
            lines += _help_entry(f"{name} {each.arguments}".strip(), summary, columns)
        lines.append("")
    for heading, group in _groups(keys).items():
        lines.append(heading)
        for key in group:
            lines += _help_entry(_option(key), _help(key, values[key.name].value), columns)
        lines.append("")
    lines += ["Help", *_help_entry("--help, -h", "print this help and exit", columns), ""]
    lines += textwrap.wrap(_SYNTAX, columns, break_on_hyphens=False)
    return "\n".join(lines)


def _help_entry(left: str, right: str, columns: int) -> list[str]:
    """Return the lines of one entry: an option on the left, its meaning on the right, wrapped."""
    indent = " " * LEFT_COLUMNS
    wrapped = textwrap.wrap(right, columns - LEFT_COLUMNS, break_on_hyphens=False)
    lines = [indent + each for each in wrapped]
    if len(left) + 2 > LEFT_COLUMNS - 2:
        return [f"  {left}", *lines]
    return [f"  {left}".ljust(LEFT_COLUMNS) + wrapped[0], *lines[1:]]


def _option(key: Key) -> str:
    short = f", -{key.short}" if key.short else ""
    if key.is_flag:
        return f"--{key.name if key.is_action else f'[no-]{key.name}'}{short}"
    return f"--{key.name}{short} {_placeholder(key)}"


def _placeholder(key: Key) -> str:
    """Return what stands for an option's value: its choices if they are short, or its kind."""
    if key.choices:
        choices = "|".join(str(each) for each in key.choices)
        return choices if len(choices) <= MAX_CHOICES_CHARACTERS else "NAME"
    return {int: "N", float: "X", str: "TEXT"}.get(key.base, "A,B")


def _help(key: Key, value: Any) -> str:
    if key.is_action:
        return key.meaning
    meaning = key.meaning
    if key.also:
        meaning += f"; also --{', --'.join(key.also)}"
    if _placeholder(key) == "NAME":
        meaning += f"; one of {', '.join(str(each) for each in key.choices)}"
    is_followed = value is None and key.follows
    return f"{meaning} [{key.followed_words if is_followed else format_value(value)}]"


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def format_value(value: Any) -> str:
    """Return a value for people: `none`, no quotes, not too long."""
    if value is None or value == ():
        return "none"
    if isinstance(value, float):
        text = repr(value).removesuffix(".0")
    elif isinstance(value, tuple):
        text = ",".join(value)
    else:
        text = value if isinstance(value, str) else to_yaml(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        half = MAX_VALUE_CHARACTERS // 2
        text = f"{text[: half - 1]}…{text[-half:]}"
    return _printable(text)


def format_settings(
    title: str, keys: Sequence[Key], values: Mapping[str, Value], comments: Collection[str] = ()
) -> str:
    """Return a YAML file with one set, `default`, and each value's provenance as a comment.

    Args:
        title: The comment in the first line.
        keys: The keys to write.
        values: Their values.
        comments: Names of keys to write as comments: shown, not set.
    """
    pairs = {}
    for key in keys:
        start = "  # " if key.name in comments else "  "
        pairs[key.name] = f"{start}{key.name}: {to_yaml(values[key.name].value)}"
    width = max((len(pair) for pair in pairs.values() if len(pair) <= COMMENT_COLUMN), default=0)
    lines = [f"# {title}", "default:"]
    for heading, group in _groups(keys).items():
        lines += ["", f"  # {heading}"]
        for key in group:
            value, provenance = values[key.name]
            follows = f" (= {key.followed_words})" if key.follows and value is None else ""
            # A file's name may hold a line break, which would end the comment.
            lines.append(f"{pairs[key.name].ljust(width)}  # {_printable(provenance + follows)}")
    return "\n".join(lines) + "\n"


def reference(parts: Iterable[tuple[str, type[Keys]]]) -> str:
    """Return tables of all keys as Markdown; `parts` are (heading, model)."""
    lines = []
    for title, model in parts:
        lines += [f"## {title}", ""]
        for heading, group in _groups(keys_of(model)).items():
            lines += [f"### {heading}", "", "| key | short | default | value | meaning |"]
            lines.append("| --- | --- | --- | --- | --- |")
            lines += [_reference_row(key) for key in group]
            lines.append("")
    return "\n".join(lines)


def _reference_row(key: Key) -> str:
    is_followed = key.default is None and key.follows
    default = key.followed_words if is_followed else to_yaml(key.default)
    also = f" (also `{'`, `'.join(key.also)}`)" if key.also else ""
    short = f"`-{key.short}`" if key.short else ""
    cells = (f"`{key.name}`", short, f"`{default}`", key.expected, key.meaning + also)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def json_schema(title: str, keys: Iterable[Key]) -> dict[str, Any]:
    """Return the JSON schema of a YAML file of named sets, for editors that complete keys.

    Draft 7, as the YAML language server reads it.
    """
    one_set = {
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "<<": {"description": "sets to inherit from: *name, or [*first, *second]"},
            **{name: _key_schema(key) for key in keys for name in key.names},
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": ["object", "null"],
        "definitions": {"set": one_set},
        # Shared keys, which are not checked until a set inherits them.
        "patternProperties": {r"^(\.|x-)": {"anyOf": [{"$ref": "#/definitions/set"}, {}]}},
        "additionalProperties": {"$ref": "#/definitions/set"},
    }


def _key_schema(key: Key) -> dict[str, Any]:
    schema = key.adapter.json_schema()
    for name in ("short", "follows", "also", "is_action"):
        del schema[name]
    if key.is_optional:
        schema["anyOf"].append({"const": "none"})
    return schema
