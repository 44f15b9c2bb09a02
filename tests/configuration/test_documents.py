"""YAML with lines: what is read, what is refused and in which words, and within which bounds."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.configuration import documents
from library.configuration.documents import inherited, read_documents, value_of
from library.errors import SettingsError
from tests.conftest import ROOT


def read(tmp_path, content):
    """Write a file and give its document."""
    path = tmp_path / "file.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_documents(path)[0]


def test_values_and_lines(tmp_path):
    node = read(tmp_path, "one:\n  rate: 1e-4\n\n  flag: no\n  list: [a, 'b', 3]\ntwo: null\n")
    one = node.entries["one"].node
    assert value_of(node) == {
        "one": {"rate": 1e-4, "flag": "no", "list": ["a", "b", 3]},
        "two": None,
    }
    assert [node.entries["one"].line, node.entries["two"].line] == [1, 6]
    lines = {key: entry.line for key, entry in one.entries.items()}
    assert lines == {"rate": 2, "flag": 4, "list": 5}


def test_quotes_and_blocks_are_text(tmp_path):
    text = 'a: "1"\nb: \'true\'\nc: |\n  1\nd: >-\n  null\ne: "caf\\u00e9"\n'
    expected = {"a": "1", "b": "true", "c": "1\n", "d": "null", "e": "café"}
    assert value_of(read(tmp_path, text)) == expected


def test_an_empty_file_is_null_and_a_byte_order_mark_is_passed_over(tmp_path):
    assert value_of(read(tmp_path, "")) is None
    assert value_of(read(tmp_path, "# nothing\n")) is None
    assert value_of(read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")) == {"a": 1, "b": 2}


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
    assert value_of(node)["c"] == {"w": 3, "x": 1, "y": 2, "z": 4}
    assert value_of(node)["d"] == {"x": 1, "y": 1}
    owners = {key: owner.name for key, (_, owner) in inherited(node.entries["c"].node).items()}
    assert owners == {"w": "<<", "x": "a", "y": "b", "z": "c"}


def test_a_quoted_merge_key_is_a_key_like_others(tmp_path):
    assert value_of(read(tmp_path, '"<<": 1\n')) == {"<<": 1}


REFUSED = {
    "a:\n\tb: 1": "file.yaml:2: a tab in the indentation; YAML wants spaces",
    "a: 1\nb: 2\na: 3": "file.yaml:3: the key 'a' stands already at line 1",
    "{a: 1, 'a': 2}": "file.yaml:1: the key 'a' stands already at line 1",
    "x: 1\na: *lost": "file.yaml:2: no anchor '&lost' stands above",
    "default: &default {}\na: *defualt": "'&defualt' stands above; did you mean 'default'?",
    "a: &a\n  b: *a": "file.yaml:2: '*a' stands inside its own anchor: a cycle",
    "a: &a\n  <<: *a": "file.yaml:2: '*a' stands inside its own anchor: a cycle",
    "a: &x 1\nb: &x 2": "file.yaml:2: the anchor '&x' stands already at line 1",
    "a: {<<: 3}": "file.yaml:1: '<<' must name a mapping (<<: *name) or a list of mappings",
    "a: &a {}\nb:\n  <<: *a\n  <<: *a": "file.yaml:4: a second '<<'; to inherit from several",
    "--- a\n--- b\n": "file.yaml:2: another document (---) begins; join the two",
    "2080: {}": "file.yaml:1: the key 2080 is not text; quote it",
    "true: {}": "file.yaml:1: the key true is not text; quote it",
    "? \n: 1": "file.yaml:1: the key (empty) is not text; quote it",
    "? [a]\n: 1": "file.yaml:1: a key must be a word, not a list or a mapping",
    f"{'k' * 201}: 1": "file.yaml:1: a key of 201 characters is too long",
    "a: !!str 1": "file.yaml:1: the tag 'tag:yaml.org,2002:str' is not read; quotes make text",
    "!!python/object:os.system a": "is not read; quotes make text",
    f"a: {'9' * 20}": "the whole number 99999999999999999999 does not fit into 64 bits",
    f"a: {'9' * 50}": "file.yaml:1: a number of 50 characters is too long",
    f"\na: {'x' * 10_001}": "file.yaml:2: a text of 10,001 characters is too long",
    "[" * 50: "file.yaml:1: nested deeper than 20 levels",
    f"a: [{'1,' * 50_000}]": "file.yaml:1: more than 50,000 keys and values",
    "a: b: c": "file.yaml:1: not YAML: a ':' too many, or wrong indentation",
    "a:\n   b: 1\n  c: 2": "file.yaml:3: not YAML: wrong indentation, or a key without ':'",
    "a: [1,\n2\nb: 3": "expected ',' or ']' (while parsing a flow sequence, begun at line 1)",
    "a: 'x\n\n": "not YAML: a quote that is never closed (while scanning a quoted scalar, begun",
    "a: @x": "file.yaml:1: not YAML: a value that begins so must be quoted",
    b"a: 1\nb: \xff\n": "file.yaml:2: byte 0xff is not UTF-8; save the file as UTF-8 text",
    "a: 1".encode("utf-16"): "file.yaml:1: byte 0xff is not UTF-8",
    b"a: 1\n\nb: \0\n": "file.yaml:3: the control character U+0000: is it a settings file?",
    b"#" * (documents.MAX_BYTES + 1): "file.yaml is larger than 2,097,152 bytes",
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: repr(content[:24]))
def test_what_is_refused_says_where_and_why(tmp_path, content):
    with pytest.raises(SettingsError, match=re.escape(REFUSED[content])):
        read(tmp_path, content)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match=r"there is no file .*nowhere.yaml \(config_file, d"):
        read_documents(tmp_path / "nowhere.yaml", named_by="config_file, default")
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory"):
        read_documents(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read: embedded null byte"):
        read_documents("a\0b")


SYNTAX = st.sampled_from([*"{}[]:,-?&*!|>'\"%@#\t\n ab1", "<<: ", ": ", "&a ", "*a ", "- ", "\n  "])


@given(st.lists(SYNTAX, max_size=40).map("".join) | st.binary(max_size=60) | st.text(max_size=60))
def test_no_content_makes_anything_but_a_settings_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "ignore"))
    problem = ""
    try:
        (node,) = read_documents(path)
        value_of(node)
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

# The limits are on what reading adds to a running interpreter.
MEASURED = """
import resource, sys, time
from pathlib import Path
from library.errors import SettingsError
from project.settings import read_settings
begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_settings(["--config_file", sys.argv[1]])
except SettingsError as error:
    print(len(str(error)))
seconds = time.process_time() - begun
print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name](documents.MAX_BYTES - 100))
    command = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    length, measured = done.stdout.splitlines()
    seconds, mebibytes = map(float, measured.split())
    assert int(length) < 400
    assert seconds < 1
    assert mebibytes < 100
