"""YAML 1.2 with the line of each key; whatever is ambiguous or unbounded is refused.

PyYAML's loader reads YAML 1.1 (`1e-4` is a string, `no` is false), silently takes the last of two
equal keys, and forgets lines, so only its event parser is used. ruamel.yaml reads YAML 1.2, but
took 25 times as long for a file of 200 KB, and 4 seconds to refuse 20,000 nested brackets.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from library.errors import SettingsError, reason_of
from library.messages import did_you_mean, shown

# Far beyond what a person writes, and small enough to refuse a hostile file at once.
MAX_BYTES = 2 * 2**20
MAX_DEPTH = 20
MAX_NODES = 50_000
MAX_CHARACTERS = 10_000
MAX_KEY_CHARACTERS = 200
MAX_NUMBER_CHARACTERS = 40
# Nodes, with each alias and each merge key counted as what it refers to.
MAX_EXPANDED_NODES = 200_000
# libyaml, if PyYAML was built with it, is ten times faster.
_PARSER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

# Scalars of the core schema of YAML 1.2.
_WORDS: dict[str, bool | None] = {
    spelling: value
    for word, value in (("true", True), ("false", False), ("null", None))
    for spelling in (word, word.title(), word.upper())
} | {"": None, "~": None}
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|()\.(nan|NaN|NAN)")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# Strings that need no quotes, because no version of YAML takes them for anything else.
_SAFE_TEXT = re.compile(r"(?!\.+$|\.inf|\.nan|\.[0-9])[a-z_./][a-z0-9_./+=-]*", re.IGNORECASE)
_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}
# A directive that says something else than what files are read as, and the line that it is on: at
# the start of the file, or after the end of a document.
_DIRECTIVE = re.compile(
    r"(?:\A|^\.{3}.*\n)(?:[ \t]*(?:#.*)?\n|%YAML[ \t]+1\.2[ \t]*(?:#.*)?\n)*+(?P<line>%.*)",
    re.MULTILINE,
)
# The parser's messages for the most common mistakes, for people who don't know its grammar.
_PLAIN_WORDS = {
    "block sequence entries are not allowed in this context": (
        "a list that starts beside its key: begin it on the next line, or write [a, b]"
    ),
    "could not find expected ':'": "a key without ':'",
    "did not find expected key": "wrong indentation, or a key without ':'",
    "did not find expected <document start>": (
        "text where '---' must be: below %YAML, or after the end of a document (...)"
    ),
    "did not find expected node content": "a value is missing",
    "found character that cannot start any token": "a value that starts like this needs quotes",
    "found unexpected end of stream": "a quote is never closed",
    "mapping values are not allowed in this context": (
        "an extra ':', or wrong indentation; a string with ': ' in it needs quotes"
    ),
}


def parse_scalar(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar in YAML 1.2: 1e-4 is a number, `no` a string.

    Raises:
        ValueError: If a number is too long, or an integer does not fit into 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if special := _SPECIAL.fullmatch(text):
        return float((special[1] or "") + text[-3:])
    is_integer = _INTEGER.fullmatch(text)
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ValueError(f"a number of {len(text)} characters is too long")
    if not is_integer:
        return float(text)
    number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"the integer {text} does not fit into 64 bits")
    return number


def parse_texts(text: str) -> list[str]:
    """Return the items of a list in brackets, such as `[flip, "a, b"]`, as strings.

    Raises:
        ValueError: It is not such a list.
    """
    try:
        events = [*yaml.parse(text, Loader=_PARSER)]
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{shown(text)} is not a list in YAML: {problem}") from None
    # Around the items: the start and the end of the stream, the document and the list.
    items = [each.value for each in events[3:-3] if isinstance(each, yaml.ScalarEvent)]
    if len(items) != len(events) - 6:
        raise ValueError(f"{shown(text)} is not a list of strings; put each into quotes")
    return items


def to_yaml(value: Any) -> str:
    """Return a scalar, or a list or a mapping of them, as YAML on one line."""
    if value is None or isinstance(value, int):
        return json.dumps(value)
    if isinstance(value, float):
        # 1e-05 is a number in YAML 1.2 but a string in 1.1; 1.0e-05 is a number in both.
        text = repr(value).replace("inf", ".inf").replace("nan", ".nan")
        mantissa, e, exponent = text.partition("e")
        return text if "." in mantissa else f"{mantissa}.0{e}{exponent}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{to_yaml(key)}: {to_yaml(each)}' for key, each in value.items())}}}"
    if not isinstance(value, str):
        return f"[{', '.join(map(to_yaml, value))}]"
    if _SAFE_TEXT.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a list or a mapping.

    Attributes:
        value: A scalar, a tuple of nodes, or {key: Node} without what is inherited.
        line: The line of the key that it is the value of; elsewhere, the one on which it starts.
        size: The number of nodes in it, with each alias counted as what it refers to.
        name: The key that a mapping is the value of.
        parents: The mappings that a mapping inherits from (`<<`), nearest first.
    """

    value: Any
    line: int
    size: int = 1
    name: str = ""
    parents: "tuple[Node, ...]" = ()


def to_python(node: Node) -> Any:
    """Return a node as plain Python: scalars, lists, and dicts with what they inherit."""
    if isinstance(node.value, dict):
        return {key: to_python(value) for key, (value, _) in merged_values(node).items()}
    return [*map(to_python, node.value)] if isinstance(node.value, tuple) else node.value


def lineage(mapping: Node, visited: set[int] | None = None) -> Iterator[Node]:
    """Yield a mapping and all that it inherits from, nearest first, each once.

    A mapping adds nothing when it is met again. So the time is linear, however the merge keys are
    crossed.

    Args:
        mapping: The mapping to start from.
        visited: Ids of mappings to skip; those that are yielded are added.
    """
    visited = set() if visited is None else visited
    waiting = [mapping]
    while waiting:
        each = waiting.pop()
        if id(each) not in visited:
            visited.add(id(each))
            yield each
            waiting.extend(reversed(each.parents))


def merged_values(mapping: Node) -> dict[str, tuple[Node, Node]]:
    """Return {key: (value, the mapping that holds it)}; own keys override inherited ones."""
    found: dict[str, tuple[Node, Node]] = {}
    for each in lineage(mapping):
        for key, value in each.value.items():
            found.setdefault(key, (value, each))
    return found


def read_documents(
    path: str | Path, max_documents: int = 1, named_by: str = "", content: bytes | None = None
) -> list[Node]:
    """Return the documents of a YAML file; an empty file has one, which is null.

    Args:
        path: The file.
        max_documents: The largest number of documents that the file may have.
        named_by: The setting that names the file, to show if there is no such file.
        content: The bytes at `path`, if that is a URL.

    Raises:
        SettingsError: With file and line, for everything that is wrong.
    """
    content = _read_bytes(Path(path), named_by) if content is None else content
    return _Composer(_decode(str(path), content), str(path)).documents(max_documents)


def _read_bytes(path: Path, named_by: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(f"file not found: {path}{named_by and f' ({named_by})'}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path.
        raise SettingsError(f"{path} cannot be read: {reason_of(error)}") from None


def _decode(path: str, content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_BYTES:,} bytes; is it a settings file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8 text"
        raise SettingsError(f"{path}:{line}: {problem}") from None
    if found := _DIRECTIVE.search(text):
        line = text.count("\n", 0, found.start("line")) + 1
        problem = f"{shown(found['line'])} is a directive; files are read as YAML 1.2: delete it"
        raise SettingsError(f"{path}:{line}: {problem}")
    return text


@dataclass
class _Composer:
    """Turns the parser's events into nodes, and checks them on the way."""

    text: str
    file: str
    node_count: int = 0
    expanded_count: int = 0
    # Name → (line, node); the node is None while it is being read.
    anchors: dict[str, tuple[int, Node | None]] = field(default_factory=dict)

    def documents(self, max_documents: int) -> list[Node]:
        found: list[Node] = []
        try:
            self.parser = _PARSER(self.text)
            while not isinstance(event := self.parser.get_event(), yaml.StreamEndEvent):
                if isinstance(event, yaml.DocumentStartEvent):
                    if len(found) == max_documents:
                        raise self._error(event, "an extra document (---); join it with the first")
                    self.anchors.clear()
                    found.append(self._node(self.parser.get_event(), 1, ""))
        except yaml.YAMLError as error:
            raise SettingsError(self._describe(error)) from None
        return found or [Node(None, 1)]

    def _error(self, event: Any, problem: object) -> SettingsError:
        return SettingsError(f"{self.file}:{event.start_mark.line + 1}: {problem}")

    def _node(self, event: Any, depth: int, name: str) -> Node:
        """Read one node; `name` is the key that it is the value of."""
        self.node_count += 1
        self.expanded_count += 1
        if self.node_count > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES:,} keys and values")
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag is not None:
            raise self._error(event, f"the tag {shown(event.tag)} is not supported; quote strings")
        line = event.start_mark.line + 1
        if event.anchor in self.anchors:
            first = self.anchors[event.anchor][0]
            anchor = shown(f"&{event.anchor}")
            raise self._error(event, f"duplicate anchor {anchor} (see line {first})")
        if event.anchor is not None:
            self.anchors[event.anchor] = (line, None)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := self.parser.get_event(), yaml.SequenceEndEvent):
                items.append(self._node(inner, depth + 1, name))
            node = Node(tuple(items), line, 1 + sum(each.size for each in items))
        else:
            node = self._mapping(line, depth, name)
        if event.anchor is not None:
            self.anchors[event.anchor] = (line, node)
        return node

    def _scalar(self, event: Any) -> bool | int | float | str | None:
        if len(event.value) > MAX_CHARACTERS:
            raise self._error(event, f"a string of {len(event.value):,} characters is too long")
        if not event.implicit[0]:
            return event.value  # A string in quotes, or a block.
        try:
            return parse_scalar(event.value)
        except ValueError as error:
            raise self._error(event, error) from None

    def _mapping(self, line: int, depth: int, name: str) -> Node:
        values: dict[str, Node] = {}
        parents, size = None, 1
        while not isinstance(event := self.parser.get_event(), yaml.MappingEndEvent):
            key = self._key(event, depth)
            node = self._node(self.parser.get_event(), depth + 1, key)
            size += 1 + node.size
            if key == "<<" and event.implicit[0]:
                if parents is not None:
                    raise self._error(event, "a second '<<'; to merge two, write <<: [*a, *b]")
                parents = self._parents(event, node)
            elif key in values:
                raise self._error(event, f"duplicate key {key!r} (see line {values[key].line})")
            else:
                values[key] = replace(node, line=event.start_mark.line + 1)
        return Node(values, line, size, name, parents or ())

    def _key(self, event: Any, depth: int) -> str:
        node = self._node(event, depth + 1, "")
        key = node.value
        if not isinstance(key, str):
            found = shown(to_python(node))
            raise self._error(event, f"a key must be a string, not {found}; use quotes")
        if len(key) > MAX_KEY_CHARACTERS:
            raise self._error(event, f"a key of {len(key):,} characters is too long")
        return key

    def _parents(self, event: Any, node: Node) -> tuple[Node, ...]:
        nodes = node.value if isinstance(node.value, tuple) else (node,)
        # A set whose keys are all commented out is null, and may be inherited from.
        parents = tuple(each for each in nodes if each.value is not None)
        if not all(isinstance(each.value, dict) for each in parents):
            raise self._error(event, "'<<' must name a mapping (<<: *name) or a list of mappings")
        return parents

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self.anchors:
            hint = did_you_mean(event.anchor, self.anchors)
            raise self._error(event, f"unknown anchor {shown(f'&{event.anchor}')}{hint}")
        _, node = self.anchors[event.anchor]
        if node is None:
            raise self._error(event, f"{shown(f'*{event.anchor}')} refers to itself: a cycle")
        self.expanded_count += node.size
        if self.expanded_count > MAX_EXPANDED_NODES:
            problem = f"more than {MAX_EXPANDED_NODES:,} keys and values, with aliases expanded"
            raise self._error(event, problem)
        return node

    def _describe(self, error: Any) -> str:
        """Return a syntax error as one line."""
        mark = getattr(error, "problem_mark", None)
        if mark is None:  # A character that no YAML file may hold.
            line_number = self.text.count("\n", 0, getattr(error, "position", 0)) + 1
            return f"{self.file}:{line_number}: not YAML: {error}".splitlines()[0]
        line = self.text.split("\n", mark.line + 1)[: mark.line + 1][-1]
        where = f"{self.file}:{mark.line + 1}"
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return f"{where}: a tab in the indentation; YAML needs spaces"
        if "cannot start any token" in error.problem and line[mark.column :].startswith("\t"):
            before = line[: mark.column].strip()[-1:]
            return f"{where}: a tab after {before!r}; YAML needs a space"
        start = error.context_mark
        is_elsewhere = start is not None and start.line != mark.line
        context = f" ({error.context}, started at line {start.line + 1})" if is_elsewhere else ""
        return f"{where}: not YAML: {_PLAIN_WORDS.get(error.problem, error.problem)}{context}"
