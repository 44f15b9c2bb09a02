"""YAML: values and lines, scalars, what is refused, and bounded time and memory."""

import math
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from library.configuration import yaml_parser
from library.configuration.yaml_parser import (
    merged_values,
    parse_scalar,
    parse_texts,
    read_documents,
    to_python,
    to_yaml,
)
from library.errors import SettingsError
from tests.conftest import ROOT


def read(tmp_path, content):
    """Write a file and give its document."""
    path = tmp_path / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_documents(path)[0]


def test_values_and_lines(tmp_path):
    node = read(tmp_path, "one:\n  rate: 1e-4\n\n  flag: no\n  list: [a, 'b', 3]\ntwo: null\n")
    one = node.value["one"]
    assert to_python(node) == {
        "one": {"rate": 1e-4, "flag": "no", "list": ["a", "b", 3]},
        "two": None,
    }
    assert [node.value["one"].line, node.value["two"].line] == [1, 6]
    lines = {key: each.line for key, each in one.value.items()}
    assert lines == {"rate": 2, "flag": 4, "list": 5}


def test_quotes_and_blocks_are_strings(tmp_path):
    text = 'a: "1"\nb: \'true\'\nc: |\n  1\nd: >-\n  null\ne: "caf\\u00e9"\n'
    expected = {"a": "1", "b": "true", "c": "1\n", "d": "null", "e": "café"}
    assert to_python(read(tmp_path, text)) == expected


def test_empty_file_is_null_and_byte_order_mark_is_skipped(tmp_path):
    assert to_python(read(tmp_path, "")) is None
    assert to_python(read(tmp_path, "# nothing\n")) is None
    assert to_python(read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")) == {"a": 1, "b": 2}


@pytest.mark.parametrize("head", ["---\n", "%YAML 1.2\n---\n", "# x\n%YAML 1.2 # y\r\n---\n"])
def test_directive_of_yaml_1_2_is_read(tmp_path, head):
    assert to_python(read(tmp_path, f"{head}a: '%YAML'\n...\n")) == {"a": "%YAML"}


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("[]", []),
        ("[flip, crop=0.5]", ["flip", "crop=0.5"]),
        ("['a, b', 1, no]", ["a, b", "1", "no"]),
    ],
)
def test_parse_texts(text, items):
    assert parse_texts(text) == items


@pytest.mark.parametrize("text", ["[*a]", "[[a]]", "[{a: b}]", "[a]]", "[a]: b", "[a: 1]", "a", ""])
def test_parse_texts_refuses(text):
    with pytest.raises(ValueError, match="list"):
        parse_texts(text)


def test_aliases_and_merge_keys(tmp_path):
    node = read(
        tmp_path,
        """
a: &a {x: 1, y: 1}
b: &b
  <<: *a
  y: 2
  z: 2
c:
  <<: [{w: 3}, *b, *a]
  z: 4
d: *a
""",
    )
    assert to_python(node)["c"] == {"w": 3, "x": 1, "y": 2, "z": 4}
    assert to_python(node)["d"] == {"x": 1, "y": 1}
    owners = {key: owner.name for key, (_, owner) in merged_values(node.value["c"]).items()}
    assert owners == {"w": "<<", "x": "a", "y": "b", "z": "c"}


def test_quoted_merge_key_is_a_plain_key(tmp_path):
    assert to_python(read(tmp_path, '"<<": 1\n')) == {"<<": 1}


# Content → what the message names.
REFUSED = {
    "a:\n\tb: 1": "file.yaml:2: a tab",
    "a: 1\nb: 2\na: 3": "file.yaml:3: .*'a'.* line 1",
    "{a: 1, 'a': 2}": "file.yaml:1: .*'a'.* line 1",
    "x: 1\na: *lost": "file.yaml:2: .*'&lost'",
    "default: &default {}\na: *defualt": "'&defualt'.*'default'",
    "a: &a\n  b: *a": r"file.yaml:2: '\*a' .*cycle",
    "a: &a\n  <<: *a": r"file.yaml:2: '\*a' .*cycle",
    "a: &x 1\nb: &x 2": "file.yaml:2: .*'&x'.* line 1",
    "a: {<<: 3}": "file.yaml:1: '<<'",
    "a: &a {}\nb:\n  <<: *a\n  <<: *a": r"file.yaml:4: .*'<<'.*<<: \[\*a, \*b\]",
    "--- a\n--- b\n": "file.yaml:2: .*---",
    "2080: {}": "file.yaml:1: .*2080",
    "true: {}": "file.yaml:1: .*true",
    "? \n: 1": "file.yaml:1: .*none",
    "? [a]\n: 1": "file.yaml:1: .*list",
    f"{'k' * 201}: 1": "file.yaml:1: .*201",
    "a: !!str 1": "file.yaml:1: .*'tag:yaml.org,2002:str'",
    "!!python/object:os.system a": "tag:yaml.org,2002:python/object:os.system",
    f"a: {'9' * 20}": "file.yaml:1: .*99999999999999999999.*64",
    f"a: {'9' * 50}": "file.yaml:1: .*50 characters",
    f"\na: {'x' * 10_001}": "file.yaml:2: .*10,001",
    "[" * 50: "file.yaml:1: .*20 levels",
    f"a: [{'1,' * 50_000}]": "file.yaml:1: .*50,000",
    "a: b: c": "file.yaml:1: .*':'",
    "a:\n   b: 1\n  c: 2": "file.yaml:3: .*indentation",
    "a: [1,\n2\nb: 3": "file.yaml:3: .*line 1",
    "a: 'x\n\n": "file.yaml:3: .*quote.*line 1",
    "a: @x": "file.yaml:1: .*quotes",
    b"a: 1\nb: \xff\n": "file.yaml:2: .*0xff.*UTF-8",
    "a: 1".encode("utf-16"): "file.yaml:1: .*0xff.*UTF-8",
    b"a: 1\n\nb: \0\n": r"file.yaml:3: .*x0000",
    "a:\n  -\tb": "file.yaml:2: .*tab.*'-'",
    "a:\n  - x\n  -\t- y": "file.yaml:3: .*tab.*'-'",
    "?\ta\n:\tb": "file.yaml:1: .*tab.*'[?]'",
    "%YAML 1.1\na: 1": "file.yaml:1: '%YAML 1.1' .*directive.*1.2",
    "# x\n\n%YAML 1.1\n---\na: 1": "file.yaml:3: '%YAML 1.1' .*directive",
    "%YAML 1.2\n%TAG ! tag:x:\n---\na: 1": "file.yaml:2: '%TAG ! tag:x:' .*directive",
    "a: 1\n...\n%YAML 1.1\n---\nb: 1": "file.yaml:3: '%YAML 1.1' .*directive",
    "%a: 1": "file.yaml:1: '%a: 1' .*directive",
    "%YAML 1.2\na: 1": "file.yaml:2: .*'---'.*%YAML",
    "a: 1\n...\nb: 2": "file.yaml:3: .*'---'",
    "a: - b": "file.yaml:1: .*list.*next line",
    b"#" * (yaml_parser.MAX_BYTES + 1): "file.yaml .*2,097,152 bytes",
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: repr(content[:24]))
def test_wrong_yaml_is_refused_by_line(tmp_path, content):
    with pytest.raises(SettingsError, match=REFUSED[content]):
        read(tmp_path, content)


def test_unreadable_file(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.yaml \(config_file, default\)"):
        read_documents(tmp_path / "nowhere.yaml", named_by="config_file, default")
    with pytest.raises(SettingsError, match="directory"):
        read_documents(tmp_path)
    with pytest.raises(SettingsError, match="null byte"):
        read_documents("a\0b")


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
        # Strings in YAML 1.2, though not in 1.1.
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
def test_parse_scalar(text, value):
    assert parse_scalar(text) == value
    assert type(parse_scalar(text)) is type(value)


def test_parse_scalar_nan():
    assert math.isnan(parse_scalar(".NaN"))


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "0x" + "f" * 16])
def test_parse_scalar_refuses_integer_beyond_64_bits(text):
    with pytest.raises(ValueError, match=f"{text}.*64"):
        parse_scalar(text)


def test_parse_scalar_refuses_long_number():
    with pytest.raises(ValueError, match="41"):
        parse_scalar("0." + "1" * 39)


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
def test_to_yaml_reads_back_the_same(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.yaml"
    path.write_text(f"key: {to_yaml(value)}  # comment\n", encoding="utf-8")
    read = to_python(read_documents(path)[0])["key"]
    assert read == value
    assert repr(read) == repr(value)


@given(st.lists(st.text(), max_size=5))
def test_parse_texts_reads_what_to_yaml_writes(items):
    assert parse_texts(to_yaml(items)) == items


@given(VALUES)
def test_to_yaml_reads_back_the_same_in_yaml_1_1(value):
    # Other people's tools read what a run leaves.
    assert repr(yaml.safe_load(f"key: {to_yaml(value)}")["key"]) == repr(value)


SYNTAX = st.sampled_from([*"{}[]:,-?&*!|>'\"%@#\t\n ab1", "<<: ", ": ", "&a ", "*a ", "- ", "\n  "])


@given(st.lists(SYNTAX, max_size=40).map("".join) | st.binary(max_size=60) | st.text(max_size=60))
def test_any_content_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "ignore"))
    problem = ""
    try:
        (node,) = read_documents(path)
        to_python(node)
    except SettingsError as error:
        problem = str(error)
    assert len(problem.splitlines()) < 2
    assert not problem or problem.startswith(str(path))


BOMBS = {
    "aliases": lambda n: (
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    ),
    "merge keys": lambda n: (
        "a0: &a0 {train_epochs: 1}\n"
        + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
    ),
    "a chain of sets": lambda n: (
        "s0: &s0 {train_epochs: 1}\n"
        + "".join(f"s{i}: &s{i} {{<<: *s{i - 1}}}\n" for i in range(1, 9000))
    ),
    "flow depth": lambda n: "[" * n,
    "block depth": lambda n: "- " * (n // 2),
    "complex keys": lambda n: "? " * (n // 2),
    "huge text": lambda n: "default:\n  data_dir: " + "a" * n,
    "huge number": lambda n: "default:\n  train_epochs: " + "9" * n,
    "huge tag": lambda n: "!<" + "%41" * (n // 3) + "> a",
    "huge anchor": lambda n: "a: *" + "b" * n,
    "one long line": lambda n: "{" + "a: 1, " * (n // 6),
    "many items": lambda n: "default:\n  augmentations: [" + "a," * (n // 2) + "]",
    "many sets": lambda n: "".join(f"set{i}:\n  train_epochs: 1\n" for i in range(n // 30)),
    "an open quote": lambda n: 'a: "' + "b\n\n\n" * (n // 4),
    "empty lines": lambda n: "a: |+\n" + "\n" * n,
}

# The limits are on what reading adds to a running interpreter: a fork of it reads each file.
MEASURED = """
import os, resource, sys, time
from library.errors import SettingsError
from project.settings import read_settings
def measure(path):
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read_settings(["--config_file", path])
    except SettingsError as error:
        length = len(str(error))
    seconds = time.process_time() - begun
    mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(path, length, seconds, mebibytes, flush=True)
    os._exit(0)
for path in sys.argv[1:]:
    os.waitpid(os.fork() or measure(path), 0)
"""


def test_hostile_files_are_refused_fast_and_small(tmp_path):
    for name, make in BOMBS.items():
        (tmp_path / name.replace(" ", "_")).write_text(make(yaml_parser.MAX_BYTES - 100))
    command = [sys.executable, "-c", MEASURED, *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    measured = [line.split() for line in done.stdout.splitlines()]
    assert len(measured) == len(BOMBS), done.stderr
    for path, length, seconds, mebibytes in measured:
        assert int(length) < 400, path
        assert float(seconds) < 1, path
        assert float(mebibytes) < 100, path
