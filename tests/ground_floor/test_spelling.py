"""What was meant, and values as errors show them."""

import time

import pytest

from library.messages import did_you_mean, meant, shown

KNOWN = ["batch_size", "learning_rate", "-cf", "--config_file"]


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
def test_the_nearest_spelling_or_what_begins_so(name, near):
    assert meant(name, KNOWN) == near
    assert did_you_mean(name, KNOWN) == f"; did you mean {near!r}?"


@pytest.mark.parametrize("name", ["xyz", "", 3, None, "x" * 81])
def test_nothing_near(name):
    assert meant(name, ["batch_size", "x" * 82]) is None
    assert did_you_mean(name, ["batch_size"], "see --help") == "; see --help"
    assert did_you_mean(name, ["batch_size"]) == ""


def test_hostile_names_cost_no_time():
    begun = time.process_time()
    meant("ab" * 40, ["ba" * 40 + str(number) for number in range(20_000)])
    meant("ab" * 1_000_000, ["ba" * 1_000_000])
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (1e-4, "0.0001"),
        ("a\nb", r"'a\nb'"),
        ([1, "a", [2], None, 5], "the list [1, 'a', […], none, …]"),
        ({"a": 1}, "keys of its own"),
        ("x" * 100, f"'{'x' * 40}'… of 100 characters"),
    ],
)
def test_values_are_shown_on_one_short_line(value, text):
    assert shown(value) == text
