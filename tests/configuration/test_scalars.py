"""Text to value and value to text, exactly."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from library.configuration.documents import read_documents, value_of
from library.configuration.scalars import plain_value, yaml_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("0.", 0.0),
        (".5", 0.5),
        ("-1.5E+3", -1500.0),
        ("-.inf", -math.inf),
        (".INF", math.inf),
        ("012", 12),
        ("0o14", 12),
        ("0xC", 12),
        ("+7", 7),
        ("-9223372036854775808", -(2**63)),
        ("True", True),
        ("FALSE", False),
        ("Null", None),
        ("~", None),
        ("", None),
        # Text in YAML 1.2, if not in 1.1.
        ("no", "no"),
        ("on", "on"),
        ("tRue", "tRue"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2001-01-01", "2001-01-01"),
        ("-", "-"),
        (".", "."),
        ("e5", "e5"),
        ("1e", "1e"),
        ("0b1", "0b1"),
        ("\u0661", "\u0661"),
        ("iNF", "iNF"),
    ],
)
def test_the_core_schema_of_yaml_1_2(text, value):
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_not_a_number():
    assert math.isnan(plain_value(".NaN"))


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "0x" + "f" * 16])
def test_a_whole_number_beyond_64_bits(text):
    with pytest.raises(ValueError, match=f"the whole number {text} does not fit into 64 bits"):
        plain_value(text)


def test_a_number_without_end():
    with pytest.raises(ValueError, match="a number of 41 characters is too long"):
        plain_value("0." + "1" * 39)


TRAPS = "1e-4 no null ~ Yes .inf 0x1 1_0 1:2 a:b - -- --- ? : # = << * & ! | > % @ ` . .. ..."
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(TRAPS.split())
    | st.sampled_from(["", " ", "a\nb\n", "\ufeff", "\u2028", "\x85", "\x7f", "\ufffe", "a #b"])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=5)


@given(VALUES)
def test_what_is_written_reads_back_the_same(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.yaml"
    path.write_text(f"key: {yaml_value(value)}  # comment\n", encoding="utf-8")
    read = value_of(read_documents(path)[0])["key"]
    assert read == value
    assert repr(read) == repr(value)


@given(VALUES)
def test_yaml_1_1_reads_the_same(value):
    # Other people's tools read what a run leaves.
    assert repr(yaml.safe_load(f"key: {yaml_value(value)}")["key"]) == repr(value)
