"""Settings from two YAML files and the command line: how to run, and what to learn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from library.configuration.command_line import Program, parse, read_question
from library.configuration.output import format_settings, help_text, version_text
from library.configuration.paths import expand_argument, is_url
from library.configuration.resolution import DEFAULT_SET, SettingsFile, make_model, resolve
from library.configuration.schema import (
    COMMAND_LINE,
    DEFAULT,
    Key,
    Keys,
    PathOrUrl,
    Text,
    Value,
    action,
    key,
    keys_of,
)
from library.configuration.search_space import Domain
from library.configuration.yaml_parser import Node, read_documents
from library.errors import SettingsError

CONFIG_FILE = "project.yaml"
HYPERPARAMETER_FILE = "hyperparameters.yaml"
# The command that takes sets with ranges.
SEARCH = "search"
# The provenance of a hyperparameter file that is part of the config file.
SECOND_DOCUMENT = "second document"


class WhichSettings(Keys):
    """The settings file and its set: options only."""

    heading = "Settings files"
    config_file: PathOrUrl = key(CONFIG_FILE, "settings file of the run", "cf")
    config_set: Text = key(DEFAULT_SET, "named set in config_file", "cs")


class Recipe(Keys):
    """The hyperparameter file and its set; project.yaml may name them for one of its sets."""

    heading = "Settings files"
    hyperparameter_file: PathOrUrl = key(HYPERPARAMETER_FILE, "hyperparameter file", "hpf")
    hyperparameter_set: Text = key(
        DEFAULT_SET, "named set in hyperparameter_file", "hps", also=["search_space"]
    )


class Actions(Keys):
    """What to do instead of a run."""

    heading = "Actions"
    print_config: bool = action("print every setting with its origin, then exit")
    list_sets: bool = action("list the sets of both files and what each changes, then exit")
    dry_run: bool = action("check settings, data and network; write nothing")


class CommandLineOnly(WhichSettings, Actions):
    """Options that no file may set."""


WHICH = tuple(each.name for each in keys_of(WhichSettings) + keys_of(Recipe))


@dataclass(frozen=True)
class Options:
    """The settings of a program that reads no file."""

    command: str
    settings: Any
    # The text to print if --help was asked for, else None.
    answer: str | None = None


def read_options(model: type[Keys], arguments: Sequence[str], program: Program) -> Options:
    """Return the Options of a command line; what it does not set has its default.

    Args:
        model: The program's settings.
        arguments: The words after the program's name.
        program: The program's name, description and commands.

    Raises:
        SettingsError: With one line about what is wrong.
    """
    asked, keys = read_question(arguments, program.commands), keys_of(model)
    is_asked = asked.wants_help or asked.wants_version
    command, _, given = parse(() if is_asked else asked.arguments, keys, program.commands)
    values = resolve(model, given)
    answer = None
    if asked.wants_help:
        answer = help_text(
            program, keys, values, command=None if asked.wants_all else asked.command
        )
    elif asked.wants_version:
        answer = version_text(program.folder)
    return Options(command, make_model(model, values), answer)


@dataclass(frozen=True)
class Settings:
    """What to run: a command, two frozen models, and where each value comes from."""

    command: str
    paths: tuple[str, ...]
    project: Any
    hyperparameters: Any
    # Key → value and origin. Where a key follows another one, the value is None, as written.
    values: dict[str, Value]
    # The text that --help, --print_config or --list_sets asks for, else None.
    answer: str | None = None
    # Folder or file → the URL that it is a local copy of.
    urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def dry_run(self) -> bool:
        """Whether to check settings, data and network only."""
        return self.values["dry_run"].value

    @property
    def domains(self) -> dict[str, Domain]:
        """Key → the values among which `search` chooses."""
        found = {name: each.value for name, each in self.values.items()}
        return {name: each for name, each in found.items() if isinstance(each, Domain)}

    def with_values(self, new: Mapping[str, Value]) -> "Settings":
        """Return these settings with other values of some keys."""
        values = {**self.values, **new}
        project, hyperparameters = (
            make_model(type(each), values) for each in (self.project, self.hyperparameters)
        )
        return replace(self, project=project, hyperparameters=hyperparameters, values=values)

    def as_written(self, value: Any) -> Any:
        """Return a value; a path in a local copy becomes the URL that it stands for."""
        for local, url in self.urls.items() if isinstance(value, str) else ():
            if value == local or value.startswith(f"{local}/"):
                return url + value.removeprefix(local)
        return value

    def _values_as_written(self) -> dict[str, Value]:
        return {k: Value(self.as_written(v.value), v.provenance) for k, v in self.values.items()}

    def as_json(self) -> dict[str, Any]:
        """Return all settings as JSON values, those of the hyperparameters last."""
        models = self.project, self.hyperparameters
        values = {k: v for each in models for k, v in each.model_dump(mode="json").items()}
        return {key: self.as_written(value) for key, value in values.items()}

    def project_yaml(self) -> str:
        """Return a project.yaml that repeats this run, together with its hyperparameters.yaml."""
        values = self._values_as_written() | {
            "hyperparameter_file": Value(HYPERPARAMETER_FILE, DEFAULT),
            "hyperparameter_set": Value(DEFAULT_SET, DEFAULT),
        }
        return format_settings("How to run, as resolved.", keys_of(self.project.__class__), values)

    def hyperparameters_yaml(self) -> str:
        """Return a hyperparameters.yaml that repeats this run."""
        keys = keys_of(self.hyperparameters.__class__)
        return format_settings("What to learn, as resolved.", keys, self._values_as_written())

    def config_yaml(self) -> str:
        """Return one file of two documents that repeats this run, as --print_config prints it."""
        keys = keys_of(WhichSettings) + keys_of(self.project.__class__)
        # Shown, not set: what these keys name has become part of the file.
        first = format_settings("How to run, as resolved.", keys, self.values, comments=WHICH)
        return f"{first}\n---\n{self.hyperparameters_yaml()}"


@dataclass(frozen=True)
class SettingsReader:
    """Reads project.yaml, hyperparameters.yaml and the command line.

    Attributes:
        program: The program's name, description and commands.
        project: The keys of project.yaml, those of Recipe among them.
        hyperparameters: The keys of hyperparameters.yaml; none is in `project` too.
        folder: Where to look for a file that is not named and not in the working directory.
        shared: Keys of `hyperparameters` that project.yaml may set too, for sets without them.
        read_url: Returns the bytes at a URL.
    """

    program: Program
    project: type[Keys]
    hyperparameters: type[Keys]
    folder: Path
    shared: tuple[str, ...]
    read_url: Callable[[str], bytes]

    @property
    def keys(self) -> tuple[Key, ...]:
        """All keys, each of which is an option."""
        models = (CommandLineOnly, self.project, self.hyperparameters)
        return tuple(each for model in models for each in keys_of(model))

    def read(self, arguments: Sequence[str]) -> Settings:
        """Return the Settings of a command line.

        Args:
            arguments: The words after the program's name.

        Raises:
            SettingsError: With one line about what is wrong; never if --help is asked for.
        """
        asked = read_question(arguments, self.program.commands)
        defaults = {each.name: Value(each.default, DEFAULT) for each in self.keys}
        if not asked.wants_help:
            if not asked.wants_version:
                return self._read(asked.arguments)
            return replace(
                self._settings("", (), defaults), answer=version_text(self.program.folder)
            )
        try:
            settings = self._read(asked.arguments)
            file, name, recipe_file, recipe_name = (settings.values[each].value for each in WHICH)
            note = (
                f"Values in brackets are in effect now (set {name} of {file}, set {recipe_name} of "
                f"{recipe_file})."
            )
        except SettingsError as error:
            settings = self._settings("", (), defaults)
            note = f"Values in brackets are the built-in defaults, because of an error: {error}"
        command = None if asked.wants_all else asked.command
        text = help_text(self.program, self.keys, settings.values, note, command)
        return replace(settings, answer=text)

    def _read(self, arguments: Sequence[str]) -> Settings:
        command, words, given = parse(arguments, self.keys, self.program.commands)
        paths = tuple(map(expand_argument, words))
        values = resolve(CommandLineOnly, given)
        values["config_file"] = self._find(values["config_file"])
        documents = self._read_file(values, "config_file", max_documents=2)
        # project.yaml comes first, because one of its sets may name the hyperparameters.
        project_keys, recipe_keys = keys_of(self.project), keys_of(self.hyperparameters)
        allowed = project_keys + tuple(each for each in recipe_keys if each.name in self.shared)
        misplaced = _misplaced(recipe_keys, HYPERPARAMETER_FILE)
        path = values["config_file"].value
        project_sets = SettingsFile(path, documents[0], allowed, misplaced)
        config_set = values["config_set"].value
        project_layers = project_sets.layers(config_set)
        values |= resolve(self.project, project_layers | given)
        values["hyperparameter_file"] = recipe = self._locate_recipe(values, documents)
        if recipe.provenance != SECOND_DOCUMENT:
            documents = self._read_file(values, "hyperparameter_file")
        misplaced = _misplaced(project_keys, CONFIG_FILE)
        recipe_sets = SettingsFile(
            recipe.value, documents[-1], recipe_keys, misplaced, has_domains=True
        )
        recipe_set = values["hyperparameter_set"].value
        layers = project_layers | recipe_sets.layers(recipe_set) | given
        values |= resolve(self.hyperparameters, layers)
        settings = self._settings(command, paths, values)
        if values["list_sets"].value:
            lists = (project_sets.listing(config_set), recipe_sets.listing(recipe_set))
            return replace(settings, answer="\n\n".join(lists))
        if values["print_config"].value:
            return replace(settings, answer=settings.config_yaml().rstrip())
        if command != SEARCH and (searched := next(iter(settings.domains), None)):
            raise SettingsError(
                f"{searched} at {values[searched].provenance} is a range to search: use the set "
                f"with `{SEARCH} --search_space {recipe_set}`, or choose another set or value"
            )
        return settings

    def _settings(self, command: str, paths: tuple[str, ...], values: dict[str, Value]) -> Settings:
        config = make_model(self.project, values)
        hyperparameters = make_model(self.hyperparameters, values)
        return Settings(command, paths, config, hyperparameters, values)

    def _read_file(
        self, values: Mapping[str, Value], name: str, max_documents: int = 1
    ) -> list[Node]:
        path, provenance = values[name]
        content = self.read_url(path) if is_url(path) else None
        return read_documents(path, max_documents, f"{name}, {provenance}", content)

    def _find(self, file: Value) -> Value:
        """Return the path of a file; one that is not named may be in `folder`."""
        path, provenance = file
        if provenance != DEFAULT or Path(path).exists():
            return file
        beside = self.folder / path
        return Value(str(beside), DEFAULT) if beside.exists() else file

    def _locate_recipe(self, values: Mapping[str, Value], documents: list[Node]) -> Value:
        """Return the path of the hyperparameter file as seen from the working directory.

        A config file names a file beside itself, so that the two can be moved together. If it has a
        second document, that is the hyperparameter file, unless the command line names another.
        """
        path, provenance = named = values["hyperparameter_file"]
        config_file = values["config_file"].value
        if provenance == COMMAND_LINE or is_url(path):
            return named
        if len(documents) == 1:
            folder = config_file.rpartition("/")[0] if is_url(config_file) else None
            beside = f"{folder}/{path}" if folder else str(Path(config_file).parent / path)
            return self._find(named) if provenance == DEFAULT else Value(beside, provenance)
        if provenance == DEFAULT:
            return Value(config_file, SECOND_DOCUMENT)
        where = f"hyperparameter_file at {provenance}"
        raise SettingsError(f"{where} contradicts the file's second document; remove one of them")


def _misplaced(keys: Iterable[Key], file: str) -> dict[str, str]:
    """Return {name: where it belongs} for the keys that belong elsewhere."""
    words = {name: f"belongs in {file}" for each in keys for name in each.names}
    return words | {each.name: "is an option only" for each in keys_of(CommandLineOnly)}
