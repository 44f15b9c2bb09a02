"""Options made from keys: `--name value`, `--name=value`, `-short value`, `--flag`, `--no-flag`.

argparse is not used: it takes abbreviations, so that a new key can change what an old command
means, and its errors don't say which spelling is near.
"""

import re
from dataclasses import dataclass
from types import MappingProxyType

from library.configuration.help_text import help_text
from library.configuration.resolution import COMMAND_LINE, Value, resolve
from library.configuration.scalars import plain_value
from library.configuration.schema import keys_of
from library.errors import SettingsError
from library.messages import did_you_mean, shown, unknown_name

HELP = ("--help", "-h")
# What may follow an option as its value though it begins with a dash.
_NEGATIVE = re.compile(r"-(\.?[0-9]|\.inf).*", re.IGNORECASE | re.DOTALL)
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "0", "1")


@dataclass(frozen=True)
class Command:
    """What --help says of a command: a summary, and its arguments (none if empty)."""

    summary: str
    arguments: str = ""


@dataclass(frozen=True)
class Arguments:
    """What the command line says: a command, the words after it, and {key: Value}."""

    command: str | None
    paths: tuple
    values: dict


@dataclass(frozen=True)
class Options:
    """The settings of a program that has no YAML file."""

    command: str | None
    paths: tuple
    values: object
    provenance: dict
    # The text to print where --help was asked for, else None.
    answer: str | None = None


def read_options(model, arguments, program, about="", commands=MappingProxyType({})):
    """Return the Options that the command line sets; all else has its default.

    `about` and `commands` (name → Command, the first is the default) are for --help. Raises
    SettingsError.
    """
    keys = keys_of(model)
    wants_help = asks_for_help(arguments)
    given = parse([] if wants_help else arguments, keys, commands)
    resolved = resolve(model, None, None, given.values)
    return Options(
        command=given.command,
        paths=given.paths,
        values=resolved.model,
        provenance={name: value.provenance for name, value in resolved.values.items()},
        answer=help_text(program, about, commands, keys, resolved.values) if wants_help else None,
    )


def asks_for_help(arguments):
    """Return whether --help or -h is among the options."""
    return len(without_help(arguments)) < len(arguments)


def without_help(arguments):
    """Return the arguments without --help and -h; after `--` they would be words like others."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [each for each in arguments[:end] if each not in HELP] + list(arguments[end:])


def parse(arguments, keys, commands=MappingProxyType({})):
    """Return Arguments. Raises SettingsError for what is unknown, misspelled or out of range."""
    return _Parser(list(arguments), keys, commands).parse()


def _spelling(word):
    """Return an option with underscores for hyphens, but for those it begins with."""
    name = word.lstrip("-")
    return "-" * (len(word) - len(name)) + name.replace("-", "_")


class _Parser:
    def __init__(self, arguments, keys, commands):
        self.waiting = arguments[::-1]
        self.commands = commands
        self.words = []
        # Key name → (the spelling that gave it, its Value)
        self.given = {}
        # Spelling → (key, the value that a flag stands for)
        self.known = {}
        for key in keys:
            if key.short:
                self._add(f"-{key.short}", key, True)
            for name in key.names:
                self._add(f"--{name}", key, True)
                if key.is_flag:
                    self._add(f"--no_{name}", key, False)

    def _add(self, spelling, key, value):
        if spelling in self.known or spelling in HELP:
            raise ValueError(f"two keys have the option {spelling}")
        self.known[spelling] = (key, value)

    def parse(self):
        while self.waiting:
            word = self.waiting.pop()
            if word == "--":
                self.words += self.waiting[::-1]
                break
            if word.startswith("-") and word != "-":
                self._option(word)
            else:
                self.words.append(word)
        values = {name: value for name, (_, value) in self.given.items()}
        return Arguments(*self._command(), values)

    def _option(self, word):
        written, equals, text = word.partition("=")
        if written in HELP:
            raise SettingsError(f"{written} takes no value")
        if _spelling(written) not in self.known:
            hint = did_you_mean(_spelling(written), [*self.known, *HELP], "--help lists all")
            raise SettingsError(f"unknown option {shown(written)}{hint}")
        key, truth = self.known[_spelling(written)]
        if not key.is_flag:
            value = _value(written, key, text if equals else self._following(written))
        elif equals and truth:
            value = _value(written, key, text)
        elif equals:
            raise SettingsError(f"{written} takes no value; write --{key.name}={text or 'false'}")
        else:
            self._refuse_loose_truth(written)
            value = truth
        if key.name in self.given:
            spellings = f"{self.given[key.name][0]} and {written}"
            raise SettingsError(f"{key.name} is given twice, by {spellings}; once is enough")
        self.given[key.name] = (written, Value(value, COMMAND_LINE))

    def _refuse_loose_truth(self, written):
        """Refuse `--xla false`, which would turn xla on and read `false` as a command."""
        word = self.waiting[-1] if self.waiting else ""
        if word.lower() in _TRUTHS:
            hint = f"write {written}, {written}=false or --no-{written.lstrip('-')}"
            raise SettingsError(f"{written} takes no separate value such as {word!r}; {hint}")

    def _following(self, written):
        if not self.waiting:
            raise SettingsError(f"{written} lacks its value")
        text = self.waiting.pop()
        if text.startswith("-") and text != "-" and not _NEGATIVE.fullmatch(text):
            hint = f"if {shown(text)} is the value, write {written}={shown(text)[1:-1]}"
            raise SettingsError(f"{written} lacks its value; {hint}")
        return text

    def _command(self):
        if not self.words:
            return next(iter(self.commands), None), ()
        name, *paths = self.words
        if not self.commands:
            raise SettingsError(f"unexpected word {shown(name)}; --help lists the options")
        if name not in self.commands:
            raise SettingsError(unknown_name("command", name, self.commands))
        if paths and not self.commands[name].arguments:
            raise SettingsError(f"nothing may follow the command {name}, not {shown(paths[0])}")
        return name, tuple(paths)


def _value(written, key, text):
    """Return the value that a text on the command line stands for, checked."""
    is_none = key.is_optional and text.lower() in ("none", "null", "~")
    if is_none or key.base is str:
        value = None if is_none else text
    elif key.base is tuple:
        value = [] if text in ("", "none") else [each.strip() for each in text.split(",")]
    elif not text:
        raise SettingsError(f"{written} lacks its value: it must be {key.expected}")
    else:
        try:
            value = plain_value(text)
        except ValueError as error:
            raise SettingsError(f"{written}: {error}") from None
    return key.check(value, written if written.startswith("--") else f"{written} ({key.name})")
