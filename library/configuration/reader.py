"""Settings of two YAML files and the command line: how to run, and what to learn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from library.configuration.command_line import asks_for_help, parse, without_help
from library.configuration.documents import read_documents
from library.configuration.help_text import help_text, set_list
from library.configuration.output import yaml_set
from library.configuration.resolution import (
    COMMAND_LINE,
    DEFAULT,
    DEFAULT_SET,
    Resolved,
    Value,
    make,
    resolve,
    sets_of,
)
from library.configuration.schema import Keys, LocalPath, Text, key, keys_of, request
from library.errors import SettingsError

CONFIG_FILE = "project.yaml"
HYPERPARAMETER_FILE = "hyperparameters.yaml"
# The provenance of a hyperparameter file that is part of the config file.
SECOND_DOCUMENT = "second document"


class WhichSettings(Keys):
    """Which settings"""

    config_file: LocalPath = key(CONFIG_FILE, "file that says how to run", "cf")
    config_set: Text = key(DEFAULT_SET, "set of that file", "cs")


class Recipe(Keys):
    """Which settings"""

    # Keys of project.yaml too, so that one of its sets can bring its recipe.
    hyperparameter_file: LocalPath = key(HYPERPARAMETER_FILE, "file that says what to learn", "hpf")
    hyperparameter_set: Text = key(DEFAULT_SET, "set of that file", "hps")


class Requests(Keys):
    """Instead of running"""

    print_config: bool = request("print every value, and where it comes from")
    list_sets: bool = request("print the sets of both files, and what each changes")
    dry_run: bool = request("check settings, data and network; write nothing")


class CommandLineOnly(WhichSettings, Requests):
    """What no file may say."""


WHICH = tuple(each.name for each in keys_of(WhichSettings) + keys_of(Recipe))


@dataclass(frozen=True)
class Settings:
    """What a run is told: a command, two frozen models, and where each value comes from."""

    command: str
    # The words after the command, where it takes some.
    paths: tuple
    project: Keys
    hyperparameters: Keys
    # {key: "default" | "project.yaml:14 (set gtx1080ti, inherited from default)" | "command line"}
    provenance: dict
    # Whether to check settings, data and network only.
    dry_run: bool
    # The text that --help, --print_config or --list_sets asks for; None where there is work to do.
    answer: str | None
    values: dict

    def project_yaml(self):
        """Return a project.yaml that repeats this run, if it lies beside hyperparameters.yaml."""
        values = dict(self.values)
        values["hyperparameter_file"] = Value(HYPERPARAMETER_FILE, "beside this file")
        values["hyperparameter_set"] = Value(DEFAULT_SET, "its one set")
        return yaml_set(keys_of(type(self.project)), values, "How to run, as resolved.")

    def hyperparameters_yaml(self):
        """Return a hyperparameters.yaml that repeats this run."""
        keys = keys_of(type(self.hyperparameters))
        return yaml_set(keys, self.values, "What to learn, as resolved.")

    def config_yaml(self):
        """Return one file of two documents that repeats this run: what --print_config prints."""
        keys = keys_of(WhichSettings) + keys_of(type(self.project))
        # Shown, not set: what they name has become part of this one file.
        project = yaml_set(keys, self.values, "How to run, as resolved.", remarks=WHICH)
        return f"{project}\n---\n{self.hyperparameters_yaml()}"


def read_two_files(
    project,
    hyperparameters,
    arguments,
    program,
    about="",
    commands=MappingProxyType({}),
    beside=None,
    in_either=(),
):
    """Return the Settings for a command line, a list of str without the program's name.

    `project` and `hyperparameters` are Keys models without a key in common; `project` has the keys
    of Recipe. `commands`: name → Command, the first the default. Where no file is named and the
    current folder has none, it is looked for in the folder `beside`. `in_either` names keys of
    `hyperparameters` that the config file may have too, for sets that lack them. Raises
    SettingsError.
    """
    reader = _Reader(project, hyperparameters, program, about, commands, beside, in_either)
    return reader.help(arguments) if asks_for_help(arguments) else reader.read(arguments)


@dataclass(frozen=True)
class _Reader:
    project: type
    hyperparameters: type
    program: str
    about: str
    commands: Mapping
    beside: Path | None = None
    in_either: tuple = ()

    @property
    def keys(self):
        models = (CommandLineOnly, self.project, self.hyperparameters)
        return tuple(each for model in models for each in keys_of(model))

    def read(self, arguments):
        """Return Settings. The project comes first, because one of its sets may name the recipe."""
        given = parse(arguments, self.keys, self.commands)
        selection = resolve(CommandLineOnly, None, None, given.values)
        selection = self._look_beside(selection, "config_file")
        file, chosen = selection.model.config_file, selection.model.config_set
        documents = _read(file, "config_file", selection, at_most=2)
        either = [each for each in keys_of(self.hyperparameters) if each.name in self.in_either]
        misplaced = _misplaced(self.hyperparameters, HYPERPARAMETER_FILE, but=either)
        sets = sets_of(documents[0], file, self.project, misplaced, either)
        how = _locate_recipe(resolve(self.project, sets, chosen, given.values), file, documents)
        how = self._look_beside(how, "hyperparameter_file")
        recipes = self._recipes(how, documents)
        recipe = how.model.hyperparameter_set
        what = resolve(
            self.hyperparameters, recipes, recipe, given.values, beneath=sets.layers(chosen)
        )
        settings = _settings(given, selection, how, what)
        if selection.model.list_sets:
            lists = (set_list(sets, chosen), set_list(recipes, recipe))
            return replace(settings, answer="\n\n".join(lists))
        if selection.model.print_config:
            return replace(settings, answer=settings.config_yaml().rstrip())
        return settings

    def _look_beside(self, resolved, name):
        """Give `resolved` with the path of a file that nobody named, wherever it is."""
        found = resolved.values[name]
        if found.provenance != DEFAULT or self.beside is None or Path(found.value).exists():
            return resolved
        path = self.beside / found.value
        return _with(resolved, name, Value(str(path), DEFAULT)) if path.exists() else resolved

    def _recipes(self, how, documents):
        """Return the sets of the hyperparameter file, which may be config file's second part."""
        file = how.model.hyperparameter_file
        if how.values["hyperparameter_file"].provenance == SECOND_DOCUMENT:
            document = documents[1]
        else:
            (document,) = _read(file, "hyperparameter_file", how)
        misplaced = _misplaced(self.project, CONFIG_FILE)
        return sets_of(document, file, self.hyperparameters, misplaced)

    def help(self, arguments):
        """Return Settings whose answer is --help, whatever else is wrong."""
        try:
            settings = self.read(without_help(arguments))
            note = _which_words(settings)
        except SettingsError as error:
            settings = self._defaults()
            note = f"In brackets the built-in defaults, as the settings are wrong: {error}"
        about = (self.about, note)
        text = help_text(self.program, about, self.commands, self.keys, settings.values)
        return replace(settings, answer=text)

    def _defaults(self):
        models = (CommandLineOnly, self.project, self.hyperparameters)
        resolved = (resolve(each, None, None, {}) for each in models)
        return _settings(parse([], self.keys, self.commands), *resolved)


def _read(file, name, resolved, at_most=1):
    return read_documents(file, at_most, f"{name}, {resolved.values[name].provenance}")


def _misplaced(model, file, but=()):
    """Say of the keys that have no place in a file where they belong: {key: words}."""
    keys = [each for each in keys_of(model) if each not in but]
    words = {name: f"belongs in {file}" for each in keys for name in each.names}
    return words | {each.name: "is for the command line" for each in keys_of(CommandLineOnly)}


def _locate_recipe(how, file, documents):
    """Give `how` with the path of its hyperparameter file as seen from the working folder.

    A config file means the file beside itself, so that the two can be moved together. If it has a
    second document, that is the hyperparameter file, unless the command line names another.
    """
    named = how.values["hyperparameter_file"]
    if named.provenance == COMMAND_LINE:
        return how
    if len(documents) == 2:
        if named.provenance != DEFAULT:
            where = f"hyperparameter_file at {named.provenance}"
            raise SettingsError(f"{where} contradicts the file's second document; drop one of them")
        found = Value(file, SECOND_DOCUMENT)
    elif named.provenance != DEFAULT:
        found = Value(str(Path(file).parent / named.value), named.provenance)
    else:
        return how
    return _with(how, "hyperparameter_file", found)


def _with(resolved, name, value):
    values = resolved.values | {name: value}
    return Resolved(make(type(resolved.model), values), values)


def _settings(given, selection, how, what):
    values = selection.values | how.values | what.values
    return Settings(
        command=given.command,
        paths=given.paths,
        project=how.model,
        hyperparameters=what.model,
        provenance={name: each.provenance for name, each in values.items()},
        dry_run=selection.model.dry_run,
        answer=None,
        values=values,
    )


def _which_words(settings):
    which = {name: settings.values[name].value for name in WHICH}
    return (
        f"In brackets what holds now, by set {which['config_set']} of {which['config_file']} and "
        f"set {which['hyperparameter_set']} of {which['hyperparameter_file']}."
    )
