"""--help, --print_config, and the files that a run writes."""

import re
import shutil
import sys
import tomllib
from functools import partial
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import convert_dataset
from library.configuration.command_line import Program
from library.configuration.output import format_value
from library.configuration.reader import CommandLineOnly, read_options
from library.configuration.schema import Keys, key, keys_of
from library.configuration.yaml_parser import to_yaml
from library.errors import SettingsError
from project.hyperparameters import Hyperparameters
from project.settings import SETTINGS_OF, read_settings
from run import COMMANDS
from tests.conftest import ROOT
from tests.helpers.settings import KEYS, WHICH, write_settings


@pytest.mark.parametrize("columns", [60, 80, 92, 200])
def test_help_shows_every_key_and_fits(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = read_settings(["--help", "all"], COMMANDS).answer
    for each in (*KEYS, *keys_of(CommandLineOnly)):
        assert re.search(rf"--(\[no-\])?{each.name}\b", text), each.name
    for each in COMMANDS:
        assert f"\n  {each}" in text
    assert max(map(len, text.splitlines())) <= min(max(columns, 80), 100)


@pytest.mark.parametrize("name", [each for each in COMMANDS if each in SETTINGS_OF])
def test_help_of_a_command_is_brief(monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "100")
    text = read_settings([name, "--help"], COMMANDS).answer
    assert len(text.splitlines()) < 60
    shown = re.findall(r"^  --(?:\[no-\])?(\w+)", text, re.MULTILINE)
    assert [each for each in shown if each not in ("help", "version")] == SETTINGS_OF[name].split()
    assert f"Settings that matter to {name} " in text
    assert text.startswith(f"usage: run.py {name} ")
    assert "\nCommands\n" not in text
    assert read_settings(["help", name], COMMANDS).answer == text
    assert read_settings(["-h", name], COMMANDS).answer == text


def test_settings_of_commands_are_known():
    known = {each.name for each in (*KEYS, *keys_of(CommandLineOnly))}
    assert {name for names in SETTINGS_OF.values() for name in names.split()} <= known


def test_help_shows_commands_and_the_settings_of_the_default_one():
    brief = read_settings(["--help"], COMMANDS).answer
    assert read_settings(["help"], COMMANDS).answer == brief
    assert "Settings that matter to train " in brief
    assert all(f"\n  {each}" in brief for each in COMMANDS)
    whole = read_settings(["--help", "all"], COMMANDS).answer
    assert len(whole) > 2 * len(brief)
    for words in ("help all", "help predict -h all", "-h all evaluate", "predict --help all"):
        assert read_settings(words.split(), COMMANDS).answer == whole


def test_help_of_an_unknown_command_answers_all_the_same():
    text = read_settings(["help", "predcit"], COMMANDS).answer
    assert "predcit" in text
    assert "did you mean 'predict'?" in " ".join(text.split())


def test_version_is_that_of_the_project_and_needs_no_settings():
    text = read_settings(["--version", "--config_file=nowhere.yaml"], COMMANDS).answer
    (line,) = text.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert line.startswith(f"{project['name']} {project['version']}, Python 3.")
    assert re.search(r"tensorflow 2\.\d+.*keras 3\.", line)
    assert convert_dataset.PROGRAM.folder == ROOT
    options = read_options(convert_dataset.Settings, ["--version"], convert_dataset.PROGRAM)
    assert options.answer == line


@pytest.mark.parametrize(
    ("started", "name"),
    [("/x/bin/run", "run"), ("run.py", "run.py"), ("/x/pytest", "run.py"), ("run.exe", "run")],
)
def test_usage_has_the_name_of_the_command_as_installed(monkeypatch, started, name):
    monkeypatch.setattr(sys, "argv", [started])
    assert read_settings(["--help"], COMMANDS).answer.startswith(f"usage: {name} [command]")


def test_help_of_inspect_is_brief():
    program = convert_dataset.PROGRAM
    text = read_options(convert_dataset.Settings, ["help", "inspect"], program).answer
    assert "--report" in text
    assert "--quality" not in text
    text = read_options(convert_dataset.Settings, ["--help"], convert_dataset.PROGRAM).answer
    assert "--quality" in text


def test_help_shows_values_of_the_chosen_set(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    sets = "default: {data_dir: there}\nlarge: {batch_size: 77, xla: true}\n"
    text = read_settings(
        [*write_settings(tmp_path, sets), "-cs", "large", "-lr", "0.25", "-h"]
    ).answer
    assert re.search(r"--batch_size, -bs N .*\[77\]", text)
    assert re.search(r"--train_batch_size, -tbs N .*\[batch_size\]", text)
    assert re.search(r"--\[no-\]xla .*\[true\]", text)
    assert re.search(r"--learning_rate, -lr X .*\[0.25\]", text)
    assert "[there]" in text
    assert "set large of" in text


@pytest.mark.parametrize(
    "wrong", ["--config_file=nowhere.yaml", "--batch_size=0", "--what", "evil"]
)
def test_help_answers_in_spite_of_errors(wrong):
    text = read_settings([wrong, "--help"]).answer
    assert wrong.partition("=")[2] in text
    assert re.search(r"--batch_size, -bs N [^\[]*\[none\]", text)


def test_help_lists_many_choices_in_the_meaning():
    class Course(Keys):
        course: Literal["fixed", "exponential", "polynomial", "cosine"] = key(
            "fixed", "how it goes"
        )
        mode: Literal["min", "max"] = key("min", "which way")

    text = read_options(Course, ["-h"], Program("x.py")).answer
    # The text wraps at the width of the terminal.
    text = re.sub(r"\s+", " ", text)
    assert "--course NAME how it goes; one of fixed, exponential, polynomial, cosine" in text
    assert "--mode min|max which way [min]" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ((), "none"),
        (True, "true"),
        (600.0, "600"),
        (1e-8, "1e-08"),
        (("a", "b=2"), "a,b=2"),
        ("two\nlines", r"two\nlines"),
        (
            "https://example.org/a/very/long/path/to/something",
            "https://example.o…/path/to/something",
        ),
    ],
)
def test_format_value(value, words):
    assert format_value(value) == words


def test_print_config_shows_every_value_with_its_origin():
    text = read_settings(["-cs", "sample", "-lr", "1e-5", "--print_config"]).answer
    for each in KEYS:
        assert re.search(rf"^  (# )?{each.name}: .+  # .+", text, re.MULTILINE), each.name
    assert re.search(r"^  learning_rate: 1.0e-05 +# command line$", text, re.MULTILINE)
    assert re.search(r"^  channels: 1 +# project.yaml:\d+ \(set sample\)$", text, re.MULTILINE)
    assert re.search(
        r"^  model_dir: null +# default \(= run_dir/checkpoints\)$", text, re.MULTILINE
    )


def value_for(each):
    """Return a strategy for the values of a key, hostile ones among them."""
    texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
    texts |= st.sampled_from(["1e-4", "no", "null", "a\nb", " ", "#", "caf\u00e9", "\u2028", "-"])
    if each.choices:
        values = st.sampled_from(each.choices)
    elif each.base is float:
        high = min(each.limits.get(name, 1e300) for name in ("exclusiveMaximum", "maximum"))
        values = st.floats(0 if high else -1e300, high, exclude_max=True, exclude_min=True)
    else:
        values = {
            int: st.integers(1, each.limits.get("maximum", 2**63 - 1)),
            bool: st.booleans(),
            str: texts,
            tuple: st.lists(texts, max_size=4).map(tuple),
        }[each.base]
    values = values | st.none() if each.is_optional else values
    return values.filter(partial(is_valid, each)) | st.just(each.default)


def is_valid(each, value):
    """Whether a key takes a value as it is: one that a clone adds may be of any kind."""
    try:
        each.check(value)
        return each.expand(value) == value  # without ~ and variables
    except SettingsError:
        return False


ANY = st.fixed_dictionaries(
    {}, optional={each.name: value_for(each) for each in KEYS if each.name not in WHICH}
).filter(
    lambda values: (
        not {"train_steps", "max_train_steps"} <= values.keys()
        and (values.get("crop_fraction") is None or values.get("fit") == "crop")
    )
)


def without_which(read):
    """Return what the settings hold, but for where they were read."""
    values = read.project.model_dump() | read.hyperparameters.model_dump()
    return {name: repr(value) for name, value in values.items() if name not in WHICH}


@given(ANY)
def test_written_settings_repeat_the_run(tmp_path_factory, values):
    folder = tmp_path_factory.getbasetemp() / "printed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    texts = ["default:\n", "default:\n"]
    for name, value in values.items():
        texts[name in Hyperparameters.model_fields] += f"  {name}: {to_yaml(value)}\n"
    first = read_settings(write_settings(folder, *texts))
    given = {each.name: each.default for each in KEYS if each.name not in WHICH} | values
    for name in values:
        if given[name] is not None and given[name] != "none":
            assert without_which(first)[name] == repr(given[name])
    # One file of two documents, as --print_config gives it.
    (folder / "one.yaml").write_text(first.config_yaml(), encoding="utf-8")
    one = read_settings(["--config_file", str(folder / "one.yaml")])
    assert without_which(one) == without_which(first)
    assert one.values["hyperparameter_file"].provenance == "second document"
    # Two files side by side, as a run leaves them; wherever they are carried.
    (folder / "run").mkdir()
    (folder / "run" / "project.yaml").write_text(first.project_yaml(), encoding="utf-8")
    recipe = first.hyperparameters_yaml()
    (folder / "run" / "hyperparameters.yaml").write_text(recipe, encoding="utf-8")
    two = read_settings(["--config_file", str(folder / "run" / "project.yaml")])
    assert without_which(two) == without_which(first)
    assert two.project_yaml().splitlines()[0] == first.project_yaml().splitlines()[0]
