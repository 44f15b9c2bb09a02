"""The layers, the provenance of each value, and what is wrong with a set."""

import re
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from library.configuration.documents import read_documents
from library.configuration.resolution import COMMAND_LINE, DEFAULT_SET, Value, resolve, sets_of
from library.configuration.schema import Count, Fraction, Keys, Positive, Text, Words, key
from library.errors import SettingsError


class Bakery(Keys):
    """Bakery"""

    loaves: Count = key(1, "loaves")
    ovens: Count | None = key(None, "ovens", follows="{loaves}")
    heat: Positive = key(180.0, "heat")
    rye: Fraction = key(0.5, "share of rye")
    open: bool = key(True, "whether it is open")
    town: Text = key("Kiel", "town")
    sign: Text | None = key(None, "sign", follows="{town}/bread")
    kind: Literal["bread", "cake"] = key("bread", "kind")
    floor: Literal[1, 3] = key(1, "floor")
    extras: Words = key((), "extras")


ELSEWHERE = {"salt": "belongs in spices.yaml"}


def read_sets(folder, text):
    (folder / "bakery.yaml").write_text(text)
    (document,) = read_documents(folder / "bakery.yaml")
    return sets_of(document, "bakery.yaml", Bakery, ELSEWHERE)


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
    resolved = resolve(Bakery, read_sets(tmp_path, TEXT), "west", given)
    assert {name: (each.value, each.provenance) for name, each in resolved.values.items()} == {
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
    assert resolved.model == Bakery(
        loaves=3, heat=200, rye=1, open=False, town="Bonn", extras=("seeds", "salt, coarse")
    )
    assert (resolved.model.ovens, resolved.model.sign) == (3, "Bonn/bread")


def test_the_default_set_lies_under_every_other(tmp_path):
    resolved = resolve(Bakery, read_sets(tmp_path, TEXT), "empty", {})
    assert resolved.values["loaves"] == Value(2, "bakery.yaml:2 (set default)")


@pytest.mark.parametrize("text", ["", "# nothing", "other: {loaves: 7}"])
def test_a_file_may_lack_the_default_set(tmp_path, text):
    assert resolve(Bakery, read_sets(tmp_path, text), DEFAULT_SET, {}).model == Bakery()


def test_none_is_no_value_in_yaml_too(tmp_path):
    sets = read_sets(tmp_path, "a: {ovens: 3, sign: x}\nb: {ovens: none, sign: null}")
    assert resolve(Bakery, sets, "b", {}).model == Bakery()


def test_a_model_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Bakery().loaves = 2


REFUSED = {
    "default:\n  loafs: 1": (
        "unknown key 'loafs' at bakery.yaml:2 (set default); did you mean 'loaves'?"
    ),
    "default:\n  lo: 1": "unknown key 'lo' at bakery.yaml:2 (set default); did you mean 'loaves'?",
    "default:\n  zzz: 1": (
        "unknown key 'zzz' at bakery.yaml:2 (set default); --help lists every key"
    ),
    "a: {}\nb: {salt: 1}": "'salt' at bakery.yaml:2 (set b) belongs in spices.yaml",
    "a: {loaves: two}": (
        "loaves at bakery.yaml:1 (set a) must be a whole number of at least 1, not 'two'"
    ),
    "a: {loaves: 0}": "must be a whole number of at least 1, not 0",
    "a: {loaves: 1.0}": "must be a whole number of at least 1, not 1.0",
    "a: {loaves: true}": "must be a whole number of at least 1, not true",
    "a: {loaves: }": "must be a whole number of at least 1, not none",
    "a: {ovens: x}": "must be a whole number of at least 1, or none, not 'x'",
    "a: {heat: 0}": "heat at bakery.yaml:1 (set a) must be a number above 0, not 0",
    "a: {heat: .inf}": "must be a number above 0, not inf",
    "a: {heat: .nan}": "must be a number above 0, not nan",
    "a: {heat: '180'}": "must be a number above 0, not '180'",
    "a: {rye: 1.5}": "must be a number of at least 0 and of at most 1, not 1.5",
    "a: {open: no}": "open at bakery.yaml:1 (set a) must be true or false, not 'no'",
    "a: {open: 1}": "must be true or false, not 1",
    "a: {town: 7}": "town at bakery.yaml:1 (set a) must be text, not 7",
    "a: {town: ''}": "must be text of 1 to 4096 characters, none of them NUL, not ''",
    'a: {town: "x\\0"}': r"none of them NUL, not 'x\x00'",
    "a: {town: [x]}": "must be text, not the list ['x']",
    "a: {town: {x: 1}}": "must be text, not keys of its own",
    "a: {kind: braed}": "must be one of bread, cake, not 'braed'; did you mean 'bread'?",
    "a: {floor: 1.0}": "must be one of 1, 3, not 1.0",
    "a: {floor: true}": "must be one of 1, 3, not true",
    "a: {extras: seeds}": "must be a list of words, not 'seeds'",
    "a: {extras: [1, 2, 3, 4, 5]}": "must be a list of words, not the list [1, 2, 3, 4, …]",
    ".x: &x {loafs: 1}\na: {<<: *x}": (
        "unknown key 'loafs' at bakery.yaml:1 (set a, inherited from .x); did you mean 'loaves'?"
    ),
    "a: 5": "bakery.yaml:1: the set 'a' must hold keys, not 5",
    "a:\n  - loaves: 1": "bakery.yaml:1: the set 'a' must hold keys, not the list",
    "- a": "bakery.yaml:1: named sets are expected here, such as 'default:' with its keys",
    "just words": "bakery.yaml:1: named sets are expected here",
    "x-a: &a {}\n<<: *a": "bakery.yaml:1: named sets are expected here",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_says_where_and_why(tmp_path, text):
    with pytest.raises(SettingsError, match=re.escape(REFUSED[text])):
        read_sets(tmp_path, text)


@pytest.mark.parametrize("name", ["wes", ".night", "x"])
def test_an_unknown_set(tmp_path, name):
    hint = "; did you mean 'west'?" if name == "wes" else ""
    words = f"bakery.yaml: unknown set {name!r}{hint} (known: default, east, empty, west)"
    with pytest.raises(SettingsError, match=f"^{re.escape(words)}$"):
        resolve(Bakery, read_sets(tmp_path, TEXT), name, {})


def test_a_check_of_the_projects_own_speaks_for_itself():
    class Odd(Keys):
        """Odd"""

        low: Count = key(1, "low")
        high: Count = key(2, "high")

        @model_validator(mode="after")
        def _in_order(self):
            if self.low > self.high:
                raise ValueError(f"low ({self.low}) must not be above high ({self.high})")
            return self

    with pytest.raises(SettingsError, match=r"^low \(3\) must not be above high \(2\)$"):
        resolve(Odd, None, None, {"low": Value(3, COMMAND_LINE)})


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
    from library.configuration.scalars import yaml_value

    lines = []
    for number, (values, parents) in enumerate(sets):
        lines.append(f"{name_of(number)}: &s{number}")
        lines += [f"  {name}: {yaml_value(value)}" for name, value in values.items()]
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
def test_resolving_equals_the_layers_applied_by_hand(tmp_path_factory, sets, options):
    read = read_sets(tmp_path_factory.getbasetemp(), written(sets))
    given = {name: Value(value, COMMAND_LINE) for name, value in options.items()}
    for number in range(len(sets)):
        expected = by_hand(sets, 0) | by_hand(sets, number) | options
        resolved = resolve(Bakery, read, name_of(number), given)
        assert resolved.model == Bakery(**expected)
        for name in VALUES:
            provenance = resolved.values[name].provenance
            assert (provenance == "default") == (name not in expected)
            assert (provenance == "command line") == (name in options)


class Other(Keys):
    """A key with another name"""

    steps: Count = key(1, "steps", also=["iterations"])
    fast: bool = key(False, "speed", also=["quick"])


def test_another_name_is_the_same_key_in_every_layer(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "default: &default {iterations: 2, quick: true}\nmore:\n  <<: *default\n  steps: 3\n"
        "again: &again\n  <<: *default\n  steps: 4\nlast:\n  <<: *again\n  iterations: 5\n"
    )
    (document,) = read_documents(tmp_path / "a.yaml")
    sets = sets_of(document, "a.yaml", Other, {})
    for chosen, steps in (("default", 2), ("more", 3), ("again", 4), ("last", 5)):
        model = resolve(Other, sets, chosen, {}).model
        assert (model.steps, model.fast) == (steps, True), chosen


def test_both_names_in_one_set_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("a:\n  steps: 1\n  iterations: 2\n")
    (document,) = read_documents(tmp_path / "a.yaml")
    words = r"iterations at a.yaml:3 \(set a\) is another name of steps, which stands there too"
    with pytest.raises(SettingsError, match=words):
        sets_of(document, "a.yaml", Other, {})
