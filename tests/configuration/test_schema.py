"""Keys: types and ranges, checked values, what replaces None."""

import re
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, Field

from library.configuration.schema import (
    Count,
    Count32,
    CountOrZero,
    CountOrZero32,
    Fraction,
    FractionBelowOne,
    Keys,
    LocalPath,
    LocalPaths,
    Positive,
    PositiveOrZero,
    Seed,
    Text,
    Words,
    action,
    key,
    keys_of,
)
from library.errors import SettingsError


def make_key(annotation, default=None):
    model = type(
        "Some",
        (Keys,),
        {"__annotations__": {"it": annotation}, "it": key(default, "it")},
    )
    (only,) = keys_of(model)
    return only


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "an integer"),
        (Count, "an integer of at least 1"),
        (CountOrZero, "an integer of at least 0"),
        (Count32, "an integer of at least 1"),
        (Seed, "an integer from 0 to 4294967295"),
        (Count | None, "an integer of at least 1, or none"),
        (float, "a number"),
        (Positive, "a number greater than 0"),
        (PositiveOrZero, "a number of at least 0"),
        (Fraction, "a number from 0 to 1"),
        (FractionBelowOne, "a number of at least 0 and less than 1"),
        (Annotated[float, Field(le=0.5)], "a number of at most 0.5"),
        (bool, "true or false"),
        (Text, "a string"),
        (Text | None, "a string, or none"),
        (LocalPath | None, "a string, or none"),
        (LocalPaths, "a list of strings"),
        (Words, "a list of strings"),
        (Literal["a", "b"], "one of a, b"),
        (Literal[1, 3] | None, "one of 1, 3, or none"),
    ],
)
def test_expected(annotation, words):
    assert make_key(annotation).expected == words
    with pytest.raises(SettingsError, match=f"^it must be {words}, not "):
        make_key(annotation).check({"a": 1})


@pytest.mark.parametrize(
    ("annotation", "value", "checked"),
    [
        (Positive, 1, 1.0),
        (Count, 2**31, 2**31),
        (Count32, 2**31 - 1, 2**31 - 1),
        (Seed, 2**32 - 1, 2**32 - 1),
        (Words, ["a", "b"], ("a", "b")),
        (Text | None, "None", None),
        (Text, "none", "none"),
        (Literal[1, 3] | None, None, None),
        (Literal[1, 3] | None, "none", None),
        (Text, "x" * 4096, "x" * 4096),
    ],
)
def test_check_returns_the_value_of_the_model(annotation, value, checked):
    assert repr(make_key(annotation).check(value)) == repr(checked)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, True),
        (int, 1.0),
        (int, "1"),
        (float, "1"),
        (float, float("nan")),
        (float, 10**400),
        (bool, 0),
        (Count32, 2**31),
        (CountOrZero32 | None, 2**63 - 1),
        (Seed, 2**32),
        (Text, ""),
        (Text, "x" * 4097),
        (Text, "\ud800"),
        (Words, "a"),
        (Words, ["a"] * 1001),
        (Literal[1, 3], True),
        (Literal[1, 3], "1"),
    ],
)
def test_check_refuses_other_types(annotation, value):
    with pytest.raises(SettingsError, match=r"^it must be "):
        make_key(annotation).check(value)


def test_own_check_keeps_its_message():
    def even(value):
        if value % 2:
            raise ValueError(f"must be even, not {value}")
        return value

    annotation = Annotated[int, AfterValidator(even)]
    assert make_key(annotation).check(2) == 2
    with pytest.raises(SettingsError, match=r"^it must be even, not 3$"):
        make_key(annotation).check(3)


@pytest.mark.parametrize("url", ["gs://b/run", "s3+x-1.y://b", "FILE:///tmp/run"])
@pytest.mark.parametrize("annotation", [LocalPath, LocalPath | None, LocalPaths])
def test_local_path_refuses_url(annotation, url):
    value = ["out/run", url] if annotation is LocalPaths else url
    with pytest.raises(SettingsError, match=f"^it .*local path.*{re.escape(url)}"):
        make_key(annotation).check(value)


@pytest.mark.parametrize("path", ["out/run", "/a b/c", "a:/b", "gs:/b", "out/gs://b", "://b", "~"])
def test_local_path(path):
    assert make_key(LocalPath | None).check(path) == path
    assert make_key(LocalPaths).check([path]) == (path,)


class Folders(Keys):
    heading = "Where things are"
    top: Text = key("out", "top", "t")
    below: Text | None = key(None, "below", follows="{top}/below")


class Speed(Keys):
    heading = "How fast"
    pace: Count = key(3, "pace")
    pace_at_night: Count | None = key(None, "pace at night", follows="{pace}")
    race: bool = action("run")


class Both(Folders, Speed):
    pass


def test_keys_of_groups_by_heading_in_order():
    assert [(each.heading, each.name) for each in keys_of(Both)] == [
        ("Where things are", "top"),
        ("Where things are", "below"),
        ("How fast", "pace"),
        ("How fast", "pace_at_night"),
        ("How fast", "race"),
    ]


def test_follows_replaces_none():
    assert (Both().below, Both().pace_at_night) == ("out/below", 3)
    both = Both(top="x", pace=7)
    assert (both.below, both.pace_at_night) == ("x/below", 7)
    assert (Both(below="y").below, Both(pace_at_night=1).pace_at_night) == ("y", 1)
    assert [each.followed_words for each in keys_of(Both) if each.follows] == ["top/below", "pace"]
