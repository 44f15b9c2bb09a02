"""Settings of two YAML files and the command line: how to run, and what to learn."""

from dataclasses import dataclass, replace

from library.configuration.command_line import asks_for_help, parse
from library.configuration.documents import read_documents
from library.configuration.help_text import help_text
from library.configuration.keys import Keys, Text, key, keys_of
from library.configuration.printing import yaml_set
from library.configuration.resolution import DEFAULT_SET, Value, resolve, sets_of


class Selection(Keys):
    """Which settings (command line only)."""

    config_file: Text = key("project.yaml", "file that says how to run", "cf")
    config_set: Text = key(DEFAULT_SET, "the set of it to use", "cs")
    print_config: bool = key(False, "print every value and where it comes from, then stop")
    list_sets: bool = key(False, "print the sets of both files, then stop")
    dry_run: bool = key(False, "check settings, data and network, write nothing")


class Recipe(Keys):
    """Which hyperparameters."""

    # Project keys, so that a set of project.yaml can bring its recipe.
    hyperparameter_file: Text = key("hyperparameters.yaml", "file that says what to learn", "hpf")
    hyperparameter_set: Text = key(DEFAULT_SET, "the set of it to use", "hps")


@dataclass(frozen=True)
class Settings:
    """What a run is told: a command, two frozen models, and where each value comes from."""

    command: str
    # The words after the command, of a command that takes some.
    paths: tuple
    project: Keys
    hyperparameters: Keys
    # {key: "default" | "project.yaml:14 (set gtx1080ti, inherited from default)" | "command line"}
    provenance: dict
    dry_run: bool
    # The text to print where --help, --print_config or --list_sets was asked for, else None.
    answer: str | None
    _values: dict

    def project_yaml(self):
        """Give the text of a project.yaml that repeats this run from beside hyperparameters.yaml."""
        values = dict(self._values)
        values["hyperparameter_file"] = Value("hyperparameters.yaml", "beside this file")
        values["hyperparameter_set"] = Value(DEFAULT_SET, "as resolved")
        return yaml_set(keys_of(type(self.project)), values, "How to run, as resolved.")

    def hyperparameters_yaml(self):
        """Give the text of a hyperparameters.yaml that repeats this run."""
        keys = keys_of(type(self.hyperparameters))
        return yaml_set(keys, self._values, "What to learn, as resolved.")


def read_two_files(project, hyperparameters, arguments, program, about="", commands=()):
    """Give the Settings for a command line (without the program's name)."""
    keys = keys_of(Selection) + keys_of(project) + keys_of(hyperparameters)
    wants_help = asks_for_help(arguments)
    given = parse([each for each in arguments if each not in ("-h", "--help")], keys, commands)
    selection = _resolve(Selection, None, None, given.values)
    file, set_name = selection.model.config_file, selection.model.config_set
    elsewhere = {each.name: "belongs in hyperparameters.yaml" for each in keys_of(hyperparameters)}
    elsewhere |= {each.name: "is given on the command line only" for each in keys_of(Selection)}
    sets = sets_of(read_documents(file)[0], file, project, elsewhere)
    how = _resolve(project, sets, set_name, given.values)
    file, set_name = how.model.hyperparameter_file, how.model.hyperparameter_set
    elsewhere = {each.name: "belongs in project.yaml" for each in keys_of(project)}
    sets = sets_of(read_documents(file)[0], file, hyperparameters, elsewhere)
    what = _resolve(hyperparameters, sets, set_name, given.values)
    values = selection.values | how.values | what.values
    settings = Settings(
        command=given.command,
        paths=given.paths,
        project=how.model,
        hyperparameters=what.model,
        provenance={name: each.provenance for name, each in values.items()},
        dry_run=selection.model.dry_run,
        answer=help_text(program, about, commands, keys, values) if wants_help else None,
        _values=values,
    )
    if selection.model.print_config and not wants_help:
        text = f"{settings.project_yaml()}\n---\n{settings.hyperparameters_yaml()}"
        settings = replace(settings, answer=text)
    return settings


def _resolve(model, sets, set_name, given):
    names = {each.name for each in keys_of(model)}
    return resolve(model, sets, set_name, {n: v for n, v in given.items() if n in names})
