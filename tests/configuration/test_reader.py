"""Two files and the command line: sets, layers, provenance, and what is refused where."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from library.configuration.resolution import (
    DEFAULT_SET,
    SettingsFile,
    make_model,
    resolve,
)
from library.configuration.schema import COMMAND_LINE, Count, Keys, Value, key, keys_of
from library.configuration.yaml_parser import read_documents, to_yaml
from library.errors import SettingsError
from project.hyperparameters import Hyperparameters
from project.settings import read_settings
from tests.helpers.settings import Bakery, write_settings


def read_sets(folder, text, model=Bakery):
    (folder / "bakery.yaml").write_text(text)
    (document,) = read_documents(folder / "bakery.yaml")
    misplaced = {"salt": "belongs in spices.yaml"}
    return SettingsFile("bakery.yaml", document, keys_of(model), misplaced)


def resolved_model(model, sets, name, given=None):
    return make_model(model, resolve(model, sets.layers(name) | (given or {})))


TEXT = """\
default: &default
  loaves: 2
  town: Bonn
.night: &night
  open: false
  heat: 200
east: &east
  <<: *default
  loaves: 3
west:
  <<: [*night, *east]
  extras: [seeds, "salt, coarse"]
empty:
"""


def test_layers_and_provenance(tmp_path):
    given = {"rye": Value(1, COMMAND_LINE)}
    values = resolve(Bakery, read_sets(tmp_path, TEXT).layers("west") | given)
    assert values == {
        "loaves": (3, "bakery.yaml:9 (set west, inherited from east)"),
        "ovens": (None, "default"),
        "heat": (200.0, "bakery.yaml:6 (set west, inherited from .night)"),
        "rye": (1.0, "command line"),
        "open": (False, "bakery.yaml:5 (set west, inherited from .night)"),
        "town": ("Bonn", "bakery.yaml:3 (set west, inherited from default)"),
        "sign": (None, "default"),
        "kind": ("bread", "default"),
        "floor": (1, "default"),
        "extras": (("seeds", "salt, coarse"), "bakery.yaml:12 (set west)"),
    }
    model = make_model(Bakery, values)
    assert model == Bakery(
        loaves=3, heat=200, rye=1, open=False, town="Bonn", extras=("seeds", "salt, coarse")
    )
    assert (model.ovens, model.sign) == (3, "Bonn/bread")


def test_default_set_lies_under_every_other(tmp_path):
    layers = read_sets(tmp_path, TEXT).layers("empty")
    assert layers["loaves"] == Value(2, "bakery.yaml:2 (set default)")


@pytest.mark.parametrize("text", ["", "# nothing", "other: {loaves: 7}"])
def test_default_set_may_be_missing(tmp_path, text):
    assert resolved_model(Bakery, read_sets(tmp_path, text), DEFAULT_SET) == Bakery()


def test_none_is_no_value(tmp_path):
    sets = read_sets(tmp_path, "a: {ovens: 3, sign: x}\nb: {ovens: none, sign: null}")
    assert resolved_model(Bakery, sets, "b") == Bakery()


def test_model_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Bakery().loaves = 2


# A file → what the message names.
WRONG_SETS = {
    "default:\n  loafs: 1": r"'loafs' at bakery.yaml:2 \(set default\).*'loaves'",
    "default:\n  lo: 1": r"'lo' at bakery.yaml:2 \(set default\).*'loaves'",
    "default:\n  zzz: 1": r"'zzz' at bakery.yaml:2 \(set default\).*--help",
    "a: {}\nb: {salt: 1}": r"'salt' at bakery.yaml:2 \(set b\) belongs in spices.yaml",
    "a: {loaves: two}": r"loaves at bakery.yaml:1 \(set a\) .* 1, not 'two'",
    "a: {loaves: 0}": "loaves .* 1, not 0",
    "a: {loaves: 1.0}": "loaves .* not 1.0",
    "a: {loaves: true}": "loaves .* not true",
    "a: {loaves: }": "loaves .* not none",
    "a: {ovens: x}": "ovens .* none, not 'x'",
    "a: {heat: 0}": r"heat at bakery.yaml:1 \(set a\) .* 0, not 0",
    "a: {heat: .inf}": "heat .* not inf",
    "a: {heat: .nan}": "heat .* not nan",
    "a: {heat: '180'}": "heat .* not '180'",
    "a: {rye: 1.5}": "rye .* 0 to 1, not 1.5",
    "a: {open: no}": r"open at bakery.yaml:1 \(set a\) .* true or false, not 'no'",
    "a: {open: 1}": "open .* true or false, not 1",
    "a: {town: 7}": r"town at bakery.yaml:1 \(set a\) .* not 7",
    "a: {town: ''}": "town .* 1 to 4096 .* not ''",
    'a: {town: "x\\0"}': r"town .*NUL, not 'x\\x00'",
    "a: {town: [x]}": r"town .*\['x'\]",
    "a: {town: {x: 1}}": "town .*keys",
    "a: {kind: braed}": "kind .* bread, cake, not 'braed'.*'bread'",
    "a: {floor: 1.0}": "floor .* 1, 3, not 1.0",
    "a: {floor: true}": "floor .* 1, 3, not true",
    "a: {extras: seeds}": "extras .* not 'seeds'",
    "a: {extras: [1, 2, 3, 4, 5]}": r"extras .*\[1, 2, 3, 4, …\]",
    ".x: &x {loafs: 1}\na: {<<: *x}": (
        r"'loafs' at bakery.yaml:1 \(set a, inherited from .x\).*'loaves'"
    ),
    "a: 5": "bakery.yaml:1: .*'a' .*not 5",
    "a:\n  - loaves: 1": "bakery.yaml:1: .*'a' .*list",
    "- a": "bakery.yaml:1: ",
    "just words": "bakery.yaml:1: ",
    "x-a: &a {}\n<<: *a": "bakery.yaml:1: ",
}


@pytest.mark.parametrize("text", WRONG_SETS)
def test_wrong_set_is_refused_by_line(tmp_path, text):
    with pytest.raises(SettingsError, match=WRONG_SETS[text]):
        read_sets(tmp_path, text)


@pytest.mark.parametrize("name", ["wes", ".night", "x"])
def test_unknown_set(tmp_path, name):
    hint = ".*'west'" if name == "wes" else ""
    words = f"bakery.yaml: .*{name!r}{hint}.*default, east, empty, west"
    with pytest.raises(SettingsError, match=words):
        read_sets(tmp_path, TEXT).layers(name)


def test_check_of_a_combination_keeps_its_message():
    class Odd(Keys):
        low: Count = key(1, "low")
        high: Count = key(2, "high")

        @model_validator(mode="after")
        def _in_order(self):
            if self.low > self.high:
                raise ValueError(f"low ({self.low}) must not be above high ({self.high})")
            return self

    with pytest.raises(SettingsError, match=r"^low \(3\) must not be above high \(2\)$"):
        make_model(Odd, resolve(Odd, {"low": Value(3, COMMAND_LINE)}))


VALUES = {
    "loaves": st.integers(1, 2**62),
    "heat": st.floats(1e-300, 1e300),
    "open": st.booleans(),
    "kind": st.sampled_from(["bread", "cake"]),
    "extras": st.lists(st.sampled_from(["a", "no", "1"]), max_size=3).map(tuple),
}
SET = st.fixed_dictionaries({}, optional=VALUES)
# Each set inherits from some that stand above it.
SETS = st.lists(st.tuples(SET, st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=6)


def written(sets):
    lines = []
    for number, (values, parents) in enumerate(sets):
        lines.append(f"{name_of(number)}: &s{number}")
        lines += [f"  {name}: {to_yaml(value)}" for name, value in values.items()]
        above = [each for each in parents if each < number]
        lines += [f"  <<: [{', '.join(f'*s{each}' for each in above)}]"] if above else []
    return "\n".join(lines)


def name_of(number):
    return "default" if number == 0 else f"set{number}"


def by_hand(sets, number):
    """Apply the rule of merge keys as it is written: own keys, then each parent's in turn."""
    values, parents = sets[number]
    result = dict(values)
    for parent in parents:
        if parent < number:
            result = by_hand(sets, parent) | result
    return result


@given(SETS, SET)
def test_resolve_equals_layers_applied_by_hand(tmp_path_factory, sets, options):
    read = read_sets(tmp_path_factory.getbasetemp(), written(sets))
    given = {name: Value(value, COMMAND_LINE) for name, value in options.items()}
    for number in range(len(sets)):
        expected = by_hand(sets, 0) | by_hand(sets, number) | options
        resolved = resolve(Bakery, read.layers(name_of(number)) | given)
        assert make_model(Bakery, resolved) == Bakery(**expected)
        for name in VALUES:
            provenance = resolved[name].provenance
            assert (provenance == "default") == (name not in expected)
            assert (provenance == "command line") == (name in options)


class Other(Keys):
    steps: Count = key(1, "steps", also=["iterations"])
    fast: bool = key(False, "speed", also=["quick"])


def test_other_name_is_the_same_key_in_every_layer(tmp_path):
    text = (
        "default: &default {iterations: 2, quick: true}\nmore:\n  <<: *default\n  steps: 3\n"
        "again: &again\n  <<: *default\n  steps: 4\nlast:\n  <<: *again\n  iterations: 5\n"
    )
    sets = read_sets(tmp_path, text, Other)
    for chosen, steps in (("default", 2), ("more", 3), ("again", 4), ("last", 5)):
        model = resolved_model(Other, sets, chosen)
        assert (model.steps, model.fast) == (steps, True), chosen


def test_both_names_in_one_set_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"iterations at bakery.yaml:3 \(set a\) .*steps"):
        read_sets(tmp_path, "a:\n  steps: 1\n  iterations: 2\n", Other)


def test_config_set_names_its_hyperparameters():
    settings = read_settings(["-cs", "sample"])
    assert settings.project.hyperparameter_set == "sample"
    pattern = r"hyperparameters\.yaml:\d+ \(set sample(, inherited from default)?\)"
    assert re.fullmatch(pattern, settings.values["learning_rate"].provenance)
    # The command line still wins.
    settings = read_settings(["-cs", "sample", "-hps", "mobilenet"])
    assert settings.hyperparameters.model == "hub"


def test_provenance(tmp_path):
    sets = "default: &default\n  batch_size: 7\nfast:\n  <<: *default\n  xla: true\n"
    settings = read_settings([*write_settings(tmp_path, sets), "-cs", "fast", "--random_seed", "3"])
    path = tmp_path / "p.yaml"
    assert settings.values["xla"].provenance == f"{path}:5 (set fast)"
    assert (
        settings.values["batch_size"].provenance == f"{path}:2 (set fast, inherited from default)"
    )
    assert settings.values["random_seed"].provenance == "command line"
    assert settings.values["image_size"].provenance == "default"


# (project.yaml, hyperparameters.yaml) → what the message names, or None.
MISPLACED = {
    ("a: {learning_rate: 1}", ""): (
        r"'learning_rate' at p.yaml:1 \(set a\) belongs in hyperparameters.yaml"
    ),
    ("", "a: {batch_size: 1}"): r"'batch_size' at h.yaml:1 \(set a\) belongs in project.yaml",
    ("a: {}\nb: {model: 3}", ""): r"model at p.yaml:2 \(set b\) .* not 3",
    ("a: {modle: x}", ""): r"'modle' at p.yaml:1 \(set a\).*'model'",
    ("a: {config_set: b}", ""): r"'config_set' at p.yaml:1 \(set a\) .*option",
    ("a: {dry_run: true}", ""): r"'dry_run' at p.yaml:1 \(set a\) .*option",
    ("", "default:\n  lerning_rate: 1"): (
        r"'lerning_rate' at h.yaml:2 \(set default\).*'learning_rate'"
    ),
    ("default:\n  learnin_rate: 1", ""): "'learnin_rate'.*'learning_rate'",
    ("a: {batch-size: 1}", ""): r"'batch-size' at p.yaml:1 \(set a\).*'batch_size'",
    ("a: {}\n---\n", ""): None,
    ("a: {}\n---\n---\n", ""): "p.yaml:3: .*---",
    ("", "a: {}\n---\n"): "h.yaml:2: .*---",
    ("default: {hyperparameter_set: x}", ""): "h.yaml: .*'x'.*default",
}


@pytest.mark.parametrize("texts", MISPLACED, ids=repr)
def test_misplaced_key_is_refused_by_line(tmp_path, monkeypatch, texts):
    write_settings(tmp_path, *texts)
    monkeypatch.chdir(tmp_path)
    given = ["-cf", "p.yaml", "-hpf", "h.yaml"]
    if MISPLACED[texts] is None:
        read_settings(given)
    else:
        with pytest.raises(SettingsError, match=MISPLACED[texts]):
            read_settings(given)


def test_missing_write_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Neither here nor, as in a clone of the project, beside run.py.
    with monkeypatch.context() as patch:
        patch.setattr("project.settings.HERE", tmp_path)
        with pytest.raises(SettingsError, match=r"project.yaml \(config_file, default\)$"):
            read_settings([])
    with pytest.raises(SettingsError, match=r" x \(config_file, command line\)$"):
        read_settings(["-cf", "x"])
    (tmp_path / "project.yaml").write_text("default:\n  hyperparameter_file: y\n")
    words = r" y \(hyperparameter_file, project.yaml:2 \(set default\)\)$"
    with pytest.raises(SettingsError, match=words):
        read_settings([])


def test_command_line_replaces_the_second_document(tmp_path):
    text = "default:\n---\ndefault: {dropout_rate: 0.1}\n"
    given = write_settings(tmp_path, text, "default:\n")
    assert read_settings(given[:1]).hyperparameters.dropout_rate == 0.1
    assert read_settings(given).hyperparameters.dropout_rate == 0.5
    given = write_settings(tmp_path, "default: {hyperparameter_file: h.yaml}\n---\n")
    words = r"hyperparameter_file at .*p.yaml:1 \(set default\) "
    with pytest.raises(SettingsError, match=words):
        read_settings(given[:1])


FORERUNNER = """\
default: &default
  model: latest
  train_batch_size: 32
  train_epochs: 1000
  epochs_between_evals: 100
  hyperparameter_file: h.yaml
  hyperparameter_set: default
  model_dir: out/checkpoints
  best_model_dir: out/best
own: &own
  <<: *default
  model: residual
more:
  <<: *own
"""
RECIPES = """\
default: {learning_rate: 1e-4}
named: &named {model: hub}
inherits: {<<: *named}
"""


@pytest.mark.parametrize(
    ("options", "model", "provenance"),
    [
        ("", "latest", "p.yaml:2 (set default)"),
        ("-cs own", "residual", "p.yaml:12 (set own)"),
        ("-cs more", "residual", "p.yaml:12 (set more, inherited from own)"),
        ("-cs own -hps named", "hub", "h.yaml:2 (set named)"),
        ("-hps inherits", "hub", "h.yaml:2 (set inherits, inherited from named)"),
        ("-cs own -hps named -m application", "application", "command line"),
        ("-m application", "application", "command line"),
    ],
)
def test_either_file_may_set_the_model(tmp_path, monkeypatch, options, model, provenance):
    write_settings(tmp_path, FORERUNNER, RECIPES)
    monkeypatch.chdir(tmp_path)
    read = read_settings(["-cf", "p.yaml", *options.split()])
    assert (read.hyperparameters.model, read.values["model"].provenance) == (model, provenance)
    assert re.search(rf"^  model: {model} +# {re.escape(provenance)}$", read.config_yaml(), re.M)
    # What a run writes repeats it.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "project.yaml").write_text(read.project_yaml())
    (tmp_path / "run" / "hyperparameters.yaml").write_text(read.hyperparameters_yaml())
    again = read_settings(["-cf", "run/project.yaml"])
    assert again.hyperparameters == read.hyperparameters
    assert again.project.model_copy(update={"hyperparameter_file": "h.yaml"}) == (
        read.project.model_copy(update={"hyperparameter_set": "default"})
    )


def test_default_model_without_either_file(tmp_path):
    read = read_settings(write_settings(tmp_path, "default:\n", "default:\n"))
    model = Hyperparameters().model
    assert (read.hyperparameters.model, read.values["model"].provenance) == (model, "default")


def test_list_sets(tmp_path):
    project = "default: &default {batch_size: 5}\n.x: &x {xla: true}\nbig:\n  <<: [*x, *default]\n"
    recipes = "default:\nslow:\n  learning_rate: 1e-5\n  augmentations: [flip, pad=2]\n"
    given = write_settings(tmp_path, project + "  image_size: 3\n", recipes)
    assert read_settings([*given, "--config_set=big", "--list_sets"]).answer == (
        f"""\
{tmp_path}/p.yaml
  default  line 1
      batch_size: 5
* big      line 3, inherits .x, default
      image_size: 3

{tmp_path}/h.yaml
* default  line 1
      no values of its own
  slow     line 2
      learning_rate: 1.0e-05, augmentations: [flip, pad=2]"""
    )
