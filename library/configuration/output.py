"""Keys and values for people: --help, and YAML to run from."""

import platform
import shutil
import textwrap
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from library.configuration.command_line import HELP, VERSION, Program
from library.configuration.schema import Key, Value
from library.configuration.search_space import Domain
from library.configuration.yaml_parser import read_documents, to_python, to_yaml
from library.errors import UserError, printable

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


def group_by_heading(keys: Iterable[Key]) -> dict[str, list[Key]]:
    """Return {heading: its keys}, in order."""
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.heading, []).append(key)
    return groups


def terminal_columns() -> int:
    """Return the width to fit text to: the terminal's, within reason."""
    columns = shutil.get_terminal_size((MAX_COLUMNS, 24)).columns
    return max(MIN_COLUMNS, min(columns, MAX_COLUMNS))


def help_text(
    program: Program,
    keys: Iterable[Key],
    values: Mapping[str, Value],
    note: str = "",
    command: str | None = None,
) -> str:
    """Return the text of --help, fitted to the terminal.

    Args:
        program: The program, its description and its commands.
        keys: All options.
        values: The values in effect, to show in brackets.
        note: What to say of these values.
        command: Show the settings that matter to this command only; "": all commands, and the
            settings of the default one; None: all commands and settings.
    """
    columns = terminal_columns()
    commands = program.commands
    name = command or next(iter(commands), "")
    chosen = commands[name].settings if commands and command is not None else ()
    usage, about = " [command]" if commands else "", program.about
    if command:
        usage = f" {command} {commands[command].arguments}".rstrip()
        about = f"{commands[command].summary}."
    lines = [f"usage: {program.name}{usage} [options]", ""]
    for paragraph in filter(None, (about[:1].upper() + about[1:], note)):
        lines += [*textwrap.wrap(paragraph, columns, break_on_hyphens=False), ""]
    if commands and not command:
        lines.append("Commands")
        for each, entry in commands.items():
            is_default = each == next(iter(commands))
            summary = entry.summary + " [default]" * is_default
            lines += _help_entry(f"{each} {entry.arguments}".strip(), summary, columns)
        lines.append("")
    groups = group_by_heading(keys)
    if chosen:
        by_name = {each.name: each for group in groups.values() for each in group}
        title = f"Settings that matter to {name} ({HELP[0]} all lists the others)"
        groups = {title: [by_name[each] for each in chosen if each in by_name]}
    for heading, group in groups.items():
        lines.append(heading)
        for key in group:
            lines += _help_entry(_option(key), _help(key, values[key.name].value), columns)
        lines.append("")
    lines += ["Help", *_help_entry(", ".join(HELP), "print this help and exit", columns)]
    if any(each.settings for each in commands.values()):
        lines += _help_entry("help COMMAND", "print the settings that matter to a command", columns)
        lines += _help_entry(f"{HELP[0]} all", "print all settings", columns)
    lines += _help_entry(VERSION, "print the versions of project and packages, and exit", columns)
    lines += ["", *textwrap.wrap(_SYNTAX, columns, break_on_hyphens=False)]
    return "\n".join(lines)


def version_text(folder: Path) -> str:
    """Return the versions of the project, of Python and of the packages that matter most.

    Args:
        folder: Where pyproject.toml is, in a clone of the project.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        own = f"{project['name']} {project['version']}"
    except (OSError, ValueError, KeyError):
        own = _installed("image-classification")
    python = f"Python {platform.python_version()}"
    return ", ".join((own, python, *map(_installed, ("tensorflow", "keras"))))


def _installed(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} (not installed)"


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
    placeholder = _placeholder(key)
    return f"--{key.name}{short} {f'[{placeholder}]' if key.bare else placeholder}"


def _placeholder(key: Key) -> str:
    """Return what stands for an option's value: its choices if they are short, or its kind."""
    if key.choices:
        choices = "|".join(str(each) for each in key.choices)
        return choices if len(choices) <= MAX_CHOICES_CHARACTERS else "NAME"
    if key.takes_words:
        return "FILE..."
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


def format_value(value: Any) -> str:
    """Return a value for people: `none`, no quotes, not too long."""
    if value is None or value == ():
        return "none"
    if isinstance(value, Domain):
        return to_yaml(value.written)
    if isinstance(value, float):
        text = repr(value).removesuffix(".0")
    elif isinstance(value, tuple):
        text = ",".join(value)
    else:
        text = value if isinstance(value, str) else to_yaml(value)
    if len(text) > MAX_VALUE_CHARACTERS:
        half = MAX_VALUE_CHARACTERS // 2
        text = f"{text[: half - 1]}…{text[-half:]}"
    return printable(text)


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
        value = values[key.name].value
        value = value.written if isinstance(value, Domain) else key.escape(value)
        pairs[key.name] = f"{start}{key.name}: {to_yaml(value)}"
    width = max((len(pair) for pair in pairs.values() if len(pair) <= COMMENT_COLUMN), default=0)
    lines = [f"# {title}", "default:"]
    for heading, group in group_by_heading(keys).items():
        lines += ["", f"  # {heading}"]
        for key in group:
            value, provenance = values[key.name]
            follows = f" (= {key.followed_words})" if key.follows and value is None else ""
            # A file's name may hold a line break, which would end the comment.
            lines.append(f"{pairs[key.name].ljust(width)}  # {printable(provenance + follows)}")
    return "\n".join(lines) + "\n"


def read_resolved(path: str | Path) -> dict[str, Any]:
    """Return the settings in a file that `format_settings` made; {} if it is no such file."""
    try:
        (document,) = read_documents(path)
        values = to_python(document)["default"]
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}
