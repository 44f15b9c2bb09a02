"""Options made from keys: `--name value`, `--name=value`, `-short value`, `--flag`, `--no-flag`.

argparse is not used: even with `allow_abbrev=False` it takes `-b 3` for `-bs`, so that a new key
can change what an old command means, and it refuses values such as `-1e-3`.
"""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.configuration.schema import COMMAND_LINE, Key, Value
from library.configuration.yaml_parser import parse_scalar, parse_texts
from library.errors import SettingsError
from library.messages import did_you_mean, nearest, shown, unknown_name

HELP = ("--help", "-h")
VERSION = "--version"
# An option's value may start with a dash if it looks like this.
_NEGATIVE = re.compile(r"-(\.?[0-9]|\.inf).*", re.IGNORECASE | re.DOTALL)
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "0", "1")


@dataclass(frozen=True)
class Command:
    """A command as --help shows it.

    Attributes:
        summary: What it does.
        arguments: Its arguments, if it takes any.
        settings: Names of the settings that matter most to it; empty: all.
    """

    summary: str
    arguments: str = ""
    settings: tuple[str, ...] = ()


# By name, the default first.
Commands = Mapping[str, Command]


@dataclass(frozen=True)
class Program:
    """A program as --help shows it, and --version."""

    name: str
    about: str = ""
    commands: Commands = field(default_factory=dict)
    # Where pyproject.toml, which has the version, is in a clone of the project.
    folder: Path = Path()


# A parsed command line: a command ("" if there are none), its arguments, and its options by the
# names of their keys.
Arguments = tuple[str, tuple[str, ...], dict[str, Value]]


def program_name(command: str, script: str) -> str:
    """Return the name by which a program was started: its installed command, or its script."""
    is_installed = Path(sys.argv[0]).name in (command, f"{command}.exe")
    return command if is_installed else script


@dataclass(frozen=True)
class Question:
    """What is asked for instead of a run, by options that may stand anywhere before `--`.

    Attributes:
        arguments: The command line without these options.
        wants_help: Whether --help, -h or the word `help` is there.
        wants_all: Whether `all` follows it.
        wants_version: Whether --version is there.
        command: The command that is named, if it is a known one, else "".
    """

    arguments: tuple[str, ...]
    wants_help: bool
    wants_all: bool
    wants_version: bool
    command: str


def read_question(arguments: Sequence[str], commands: Commands) -> Question:
    """Return what a command line asks for instead of a run."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words = [*arguments[:end]]
    if words[:1] == ["help"] and "help" not in commands:
        words[0] = HELP[0]
    asked = {number for number, word in enumerate(words) if word in HELP}
    asked_all = {number + 1 for number in asked if words[number + 1 : number + 2] == ["all"]}
    rest = [
        word
        for number, word in enumerate(words)
        if number not in asked | asked_all and word != VERSION
    ]
    return Question(
        arguments=(*rest, *arguments[end:]),
        wants_help=bool(asked),
        wants_all=bool(asked_all),
        wants_version=VERSION in words,
        command=next((each for each in rest if each in commands), ""),
    )


def parse(arguments: Iterable[str], keys: Iterable[Key], commands: Commands) -> Arguments:
    """Return the Arguments of a command line.

    Args:
        arguments: The words after the program's name.
        keys: The keys that are options.
        commands: The program's commands by name, the default first.

    Raises:
        SettingsError: If something is unknown, misspelled or out of range.
    """
    options = _options_of(keys)
    waiting, words = [*arguments][::-1], list[str]()
    # The name of a key → (the spelling that sets it, its value)
    given: dict[str, tuple[str, Value]] = {}
    while waiting:
        word = waiting.pop()
        if word == "--":
            words += waiting[::-1]
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        written, key, value = _read_option(word, options, waiting)
        if key.name in given:
            spellings = f"{given[key.name][0]} and {written}"
            raise SettingsError(f"{key.name} is given twice, by {spellings}; give it once")
        given[key.name] = (written, Value(value, COMMAND_LINE))
    return *_split_command(words, commands, options), {
        name: value for name, (_, value) in given.items()
    }


# Spelling → (key, what a flag of that spelling sets it to)
_Options = Mapping[str, tuple[Key, bool]]


def _options_of(keys: Iterable[Key]) -> _Options:
    found: dict[str, tuple[Key, bool]] = {}
    for key in keys:
        options = {f"-{key.short}": (key, True)} if key.short else {}
        options |= {f"--{name}": (key, True) for name in key.names}
        options |= {f"--no_{name}": (key, False) for name in key.names if key.is_flag}
        if twice := options.keys() & {*found, *HELP, VERSION}:
            raise ValueError(f"two keys have the option {min(twice)}")
        found |= options
    return found


def _split_command(
    words: list[str], commands: Commands, options: _Options
) -> tuple[str, tuple[str, ...]]:
    """Return the command and its arguments."""
    if not words:
        return next(iter(commands), ""), ()
    name, *paths = words
    if not commands:
        hint = _dashes_hint(name, options) or "; --help lists the options"
        raise SettingsError(f"unexpected argument {shown(name)}{hint}")
    if name not in commands:
        if hint := _dashes_hint(name, options):
            raise SettingsError(f"unknown command {shown(name)}{hint}")
        raise SettingsError(unknown_name("command", name, commands))
    if paths and not commands[name].arguments:
        hint = _dashes_hint(paths[0], options)
        raise SettingsError(f"unexpected argument {shown(paths[0])}: {name} takes none{hint}")
    for path in paths:
        option, equals, _ = path.partition("=")
        if equals and f"--{option.replace('-', '_')}" in options:
            hint = f"{_dashes_hint(path, options)} (a file of that name is ./{option}=…)"
            raise SettingsError(f"unexpected argument {shown(path)}{hint}")
    return name, tuple(paths)


def _dashes_hint(word: str, options: _Options) -> str:
    """Return `; did you mean '--name=value'?` for an option without its dashes, else ''."""
    name, equals, text = word.partition("=")
    name = name.replace("-", "_")
    spelling = next((each for each in (f"--{name}", f"-{name}") if each in options), None)
    if spelling is None and equals:
        spelling = nearest(f"--{name}", options)
    return f"; did you mean {spelling + equals + text!r}?" if spelling else ""


def _read_option(word: str, options: _Options, waiting: list[str]) -> tuple[str, Key, Any]:
    """Return an option's spelling, key and value, which may be the next word."""
    written, equals, text = word.partition("=")
    if written in (*HELP, VERSION):
        raise SettingsError(f"{written} takes no value")
    # With underscores for hyphens, except for those that it starts with.
    name = written.lstrip("-")
    spelling = "-" * (len(written) - len(name)) + name.replace("-", "_")
    if spelling not in options:
        hint = did_you_mean(spelling, [*options, *HELP, VERSION], "--help lists all")
        raise SettingsError(f"unknown option {shown(written)}{hint}")
    key, truth = options[spelling]
    if equals and not truth:
        raise SettingsError(f"{written} takes no value; write --{key.name}={text or 'false'}")
    if equals or not key.is_flag:
        is_bare = key.bare and not equals and (not waiting or waiting[-1].startswith("-"))
        texts = [text if equals else key.bare if is_bare else _next_value(written, key, waiting)]
        while key.takes_words and not equals and waiting and not waiting[-1].startswith("-"):
            texts.append(waiting.pop())
        return written, key, _parse_value(written, key, texts)
    # `--xla false` would turn xla on and take `false` for a command.
    if waiting and waiting[-1].lower() in _TRUTHS:
        hint = f"write {written}, {written}=false or --no-{name}"
        problem = f"takes no separate value such as {waiting[-1]!r}"
        raise SettingsError(f"{written} {problem}; {hint}")
    return written, key, truth


def _next_value(written: str, key: Key, waiting: list[str]) -> str:
    if not waiting:
        raise SettingsError(f"{written} needs a value")
    text = waiting.pop()
    is_value = not text.startswith("-") or text == "-" or _NEGATIVE.fullmatch(text)
    if not is_value and not key.takes_options:
        hint = f"if {shown(text)} is the value, write {written}={shown(text)[1:-1]}"
        raise SettingsError(f"{written} needs a value; {hint}")
    return text


def _parse_list(written: str, text: str) -> list[str]:
    """Return the items of a,b or, as --print_config writes them, of [a, b]."""
    if text in ("", "none"):
        return []
    if not text.startswith("["):
        return [each.strip() for each in text.split(",")]
    if not text.rstrip().endswith("]"):
        raise SettingsError(f"{written} {shown(text)} has no end; write {written} '[a, b]' or a,b")
    try:
        return parse_texts(text)
    except ValueError as error:
        raise SettingsError(f"{written}: {error}") from None


def _parse_value(written: str, key: Key, texts: list[str]) -> Any:
    """Return the value that an option's text stands for, or several texts, checked."""
    value: Any
    text = texts[0]
    is_none = key.is_optional and text.lower() in ("none", "null", "~")
    if is_none or key.base is str:
        value = None if is_none else text
    elif key.base is tuple:
        value = [each for text in texts for each in _parse_list(written, text)]
    elif not text:
        raise SettingsError(f"{written} needs a value: it must be {key.expected}")
    else:
        try:
            value = parse_scalar(text)
        except ValueError as error:
            raise SettingsError(f"{written}: {error}") from None
    return key.check(value, written if written.startswith("--") else f"{written} ({key.name})")
