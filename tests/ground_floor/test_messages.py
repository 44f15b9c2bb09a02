import time

import pytest

from library.messages import (
    ChoiceError,
    choose,
    counted,
    counted_classes,
    counted_present,
    did_you_mean,
    nearest,
    shown,
    unknown_name,
)

NETWORKS = {"residual": 1, "simple": 2, "mobilenet": 3}
SETTINGS = ["batch_size", "learning_rate", "-cf", "--config_file"]


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 images"), (1, "1 image"), (2, "2 images"), (4000, "4,000 images")]
)
def test_counted(number, words):
    assert counted(number, "image") == words


def test_counted_takes_irregular_plurals():
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(3, "batch", "batches") == "3 batches"
    assert [counted_classes(each) for each in (1, 10)] == ["1 class", "10 classes"]


def test_choose_returns_known_value():
    assert choose("network", "simple", NETWORKS) == 2


def test_choose_names_nearest_and_all():
    with pytest.raises(ChoiceError) as caught:
        choose("network", "mobilnet", NETWORKS)
    assert str(caught.value) == (
        "unknown network 'mobilnet'; did you mean 'mobilenet'? (known: mobilenet, residual, simple)"
    )
    assert caught.value.exit_code == 2
    assert unknown_name("set", "xyz", []) == "unknown set 'xyz' (known: none)"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lerning_rate", "learning_rate"),
        ("learn", "learning_rate"),
        ("l", "learning_rate"),
        ("--conf", "--config_file"),
        ("--cf", "-cf"),
    ],
)
def test_nearest_spelling_or_beginning(name, near):
    assert nearest(name, SETTINGS) == near
    assert did_you_mean(name, SETTINGS) == f"; did you mean {near!r}?"


@pytest.mark.parametrize("name", ["xyz", "", 3, None, "x" * 81])
def test_nothing_near(name):
    assert nearest(name, ["batch_size", "x" * 82]) is None
    assert did_you_mean(name, ["batch_size"], "see --help") == "; see --help"
    assert did_you_mean(name, ["batch_size"]) == ""


def test_hostile_names_take_no_time():
    begun = time.process_time()
    nearest("ab" * 40, ["ba" * 40 + str(number) for number in range(20_000)])
    nearest("ab" * 1_000_000, ["ba" * 1_000_000])
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (1e-4, "0.0001"),
        ("a\nb", r"'a\nb'"),
        ([1, "a", [2], None, 5], "the list [1, 'a', […], none, …]"),
        ({"a": 1}, "nested keys"),
        ("x" * 100, f"'{'x' * 40}'… of 100 characters"),
    ],
)
def test_shown_values_are_one_short_line(value, text):
    assert shown(value) == text


def test_counted_present_names_what_is_lacking():
    assert counted_present({"a": 1, "b": 2}) == "2 classes"
    assert counted_present({"a": 1, "b": 0, "c": 0}) == "1 of 3 classes; none of b, c"
    many = counted_present({"a": 1, **{f"c{number:03d}": 0 for number in range(199)}})
    assert many == "1 of 200 classes; none of c000, c001, c002, c003, c004, … (199 in all)"
    assert len(counted_present({"x" * 5000: 0})) < 100
