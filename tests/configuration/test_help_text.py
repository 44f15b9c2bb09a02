"""--help: every key, what holds now, and nothing beyond the terminal's edge."""

import re
from typing import Literal

import pytest

from library.configuration.command_line import read_options
from library.configuration.help_text import value_in_words
from library.configuration.reader import CommandLineOnly
from library.configuration.schema import Keys, key, keys_of
from project.settings import read_settings
from run import COMMANDS
from tests.project.test_settings import KEYS, files


@pytest.mark.parametrize("columns", [60, 80, 92, 200])
def test_help_shows_every_key_and_fits(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = read_settings(["--help"], COMMANDS).answer
    for each in (*KEYS, *keys_of(CommandLineOnly)):
        assert re.search(rf"--(\[no-\])?{each.name}\b", text), each.name
    for each in COMMANDS:
        assert f"\n  {each}" in text
    assert max(map(len, text.splitlines())) <= min(max(columns, 80), 100)


def test_help_shows_what_holds_with_the_chosen_set(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    sets = "default: {data_dir: there}\nlarge: {batch_size: 77, xla: true}\n"
    text = read_settings([*files(tmp_path, sets), "-cs", "large", "-lr", "0.25", "-h"]).answer
    assert re.search(r"--batch_size, -bs N .*\[77\]", text)
    assert re.search(r"--train_batch_size, -tbs N .*\[batch_size\]", text)
    assert re.search(r"--\[no-\]xla .*\[true\]", text)
    assert re.search(r"--learning_rate, -lr X .*\[0.25\]", text)
    assert "[there]" in text
    assert "by set large of" in text


@pytest.mark.parametrize(
    "wrong", ["--config_file=nowhere.yaml", "--batch_size=0", "--what", "evil"]
)
def test_help_comes_whatever_is_wrong(wrong):
    text = read_settings([wrong, "--help"]).answer
    assert "In brackets the built-in defaults, as the settings are wrong: " in text
    assert "--batch_size, -bs N" in text


def test_many_choices_stand_in_the_meaning():
    class Course(Keys):
        """Course"""

        course: Literal["fixed", "exponential", "polynomial", "cosine"] = key(
            "fixed", "how it goes"
        )
        mode: Literal["min", "max"] = key("min", "which way")

    text = read_options(Course, ["-h"], "x.py").answer
    assert "  --course WORD                     how it goes: fixed, exponential, polynomial" in text
    assert "  --mode min|max                    which way [min]" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ((), "none"),
        (True, "true"),
        (600.0, "600"),
        (1e-8, "1e-08"),
        (("a", "b=2"), "a,b=2"),
        ("two\nlines", "two?lines"),
        (
            "https://example.org/a/very/long/path/to/something",
            "https://example.o…/path/to/something",
        ),
    ],
)
def test_values_are_for_people(value, words):
    assert value_in_words(value) == words
