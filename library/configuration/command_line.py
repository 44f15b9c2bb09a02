"""Options made from keys: `--name value`, `--name=value`, `-short value`, `--flag`, `--no-flag`.

argparse is not used: it takes abbreviations, so that a new key can change what an old command
means, and its errors don't say which spelling is near.
"""

import re
from dataclasses import dataclass

from library.choices import nearest, unknown
from library.configuration.documents import plain_value
from library.configuration.help_text import help_text
from library.configuration.keys import keys_of
from library.configuration.resolution import Value, resolve
from library.errors import SettingsError

COMMAND_LINE = "command line"
HELP = ("--help", "-h")

_NUMBER = re.compile(r"-(\.?[0-9]|\.inf).*", re.IGNORECASE)
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "0", "1")


@dataclass(frozen=True)
class Command:
    """A word that says what to do, its meaning, and what may follow it (nothing if empty)."""

    name: str
    meaning: str
    followed_by: str = ""


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


def read_options(model, arguments, program, about="", commands=()):
    """Give the Options that the command line sets; all else has its default.

    `about` and `commands` (of Command, the first is the default) are for --help.
    """
    keys = keys_of(model)
    wants_help = asks_for_help(arguments)
    given = Arguments(commands[0].name if commands else None, (), {})
    if not wants_help:
        given = parse(arguments, keys, commands)
    resolved = resolve(model, None, None, given.values)
    answer = help_text(program, about, commands, keys, resolved.values) if wants_help else None
    provenance = {name: value.provenance for name, value in resolved.values.items()}
    return Options(given.command, given.paths, resolved.model, provenance, answer)


def asks_for_help(arguments):
    """Say whether --help or -h is among the options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(each in HELP for each in options)


def parse(arguments, keys, commands=()):
    """Give the Arguments. Raises SettingsError for what is unknown, misspelt or of the wrong type."""
    return _Parser(list(arguments), keys, commands).parse()


def _spelling(word):
    """Give an option with underscores for hyphens, but for those it begins with."""
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
            self._add(f"--{key.name}", key, True)
            if key.short:
                self._add(f"-{key.short}", key, True)
            if key.is_flag:
                self._add(f"--no_{key.name}", key, False)

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
        if _spelling(written) not in self.known:
            raise SettingsError(self._unknown(written))
        key, flag = self.known[_spelling(written)]
        if key.is_flag and not equals:
            self._refuse_loose_truth(written)
            value = flag
        elif key.is_flag and flag is False:
            raise SettingsError(f"{written} takes no value; write --{key.name}={text}")
        else:
            value = self._value(written, key, text if equals else self._following(written))
        if key.name in self.given:
            before, _ = self.given[key.name]
            raise SettingsError(f"{written} was given before, as {before}; once is enough")
        self.given[key.name] = (word, Value(value, COMMAND_LINE))

    def _refuse_loose_truth(self, written):
        if self.waiting and self.waiting[-1].lower() in _TRUTHS:
            name = written.lstrip("-")
            word = self.waiting[-1]
            hint = f"write {written}={word}, or --{name} and --no-{name}"
            raise SettingsError(f"{written} takes no separate value {word!r}; {hint}")

    def _following(self, written):
        if not self.waiting:
            raise SettingsError(f"{written} has no value")
        text = self.waiting.pop()
        if text.startswith("-") and text != "-" and not _NUMBER.fullmatch(text):
            hint = f"if {text!r} is its value, write {written}={text}"
            raise SettingsError(f"{written} has no value ({hint})")
        return text

    def _value(self, written, key, text):
        if key.base is str and not key.choices:
            return key.check(text, f" ({written})")
        if key.base is tuple:
            words = [] if text in ("", "none") else [each.strip() for each in text.split(",")]
            return key.check(words, f" ({written})")
        try:
            return key.check(plain_value(text), f" ({written})")
        except ValueError as error:
            raise SettingsError(f"{written}: {error}") from None

    def _unknown(self, written):
        name = _spelling(written).lstrip("-")
        longer = sorted(each for each in self.known if each.startswith(f"--{name}")) if name else []
        near = nearest(_spelling(written), self.known) or (longer[0] if longer else None)
        hint = f"did you mean {near!r}?" if near else "--help lists all"
        return f"unknown option {written!r}; {hint}"

    def _command(self):
        if not self.commands:
            if self.words:
                raise SettingsError(f"unexpected word {self.words[0]!r}; --help lists the options")
            return None, ()
        if not self.words:
            return self.commands[0].name, ()
        name, *paths = self.words
        known = {each.name: each for each in self.commands}
        if name not in known:
            raise SettingsError(unknown("command", name, known))
        if paths and not known[name].followed_by:
            raise SettingsError(f"{name} takes no further words, but {paths[0]!r} follows")
        return name, tuple(paths)
