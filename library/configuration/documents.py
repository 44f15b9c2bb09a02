"""YAML with the line of every key and value; what is ambiguous or boundless is refused.

PyYAML's own loader reads YAML 1.1 (`1e-4` is text, `no` is false), keeps the last of two equal keys
without a word, and forgets lines. So only its parser is used here, event by event, and the scalars
are those of YAML 1.2's core schema.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from library.configuration.scalars import plain_value
from library.errors import SettingsError, reason_of
from library.messages import did_you_mean, shown

# Far beyond what a person writes, and small enough that a hostile file is refused at once.
MAX_BYTES = 2 * 2**20
MAX_DEPTH = 20
MAX_NODES = 50_000
MAX_CHARACTERS = 10_000
MAX_KEY_CHARACTERS = 200
# Nodes with each alias and each merge key counted as what it stands for.
MAX_EXPANDED_NODES = 200_000
# libyaml's parser where PyYAML was built with it: ten times faster.
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What no YAML file may hold, escaped or not at all.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The parser's words for the commonest slips, for people who don't know its grammar.
_PLAIN_WORDS = {
    "could not find expected ':'": "a key without ':'",
    "did not find expected key": "wrong indentation, or a key without ':'",
    "found character that cannot start any token": "a value that begins so must be quoted",
    "found unexpected end of stream": "a quote that is never closed",
    "mapping values are not allowed in this context": (
        "a ':' too many, or wrong indentation; text with ': ' in it must be quoted"
    ),
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One plain value and its line."""

    value: object
    line: int
    size: int = 1


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    items: tuple
    line: int
    size: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and what they stand for, and the mappings it inherits from (`<<`), nearest first."""

    name: str
    line: int
    entries: dict
    parents: tuple
    size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping: its line and its node."""

    line: int
    node: object


def read_documents(path, at_most=1, named_by=""):
    """Return the documents of a YAML file, each a node; an empty file has one, which is null.

    Raises SettingsError with file and line. `named_by` says who named the file, if it is missing.
    """
    text = _text_of(_read_bytes(Path(path), named_by), path)
    return _Composer(text, str(path)).documents(at_most)


def is_null(node):
    """Return whether a node is null, or nothing at all."""
    return isinstance(node, Scalar) and node.value is None


def value_of(node):
    """Return a node as plain Python: scalars, lists, dicts with what they inherit."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [value_of(each) for each in node.items]
    return {key: value_of(entry.node) for key, (entry, _) in inherited(node).items()}


def lineage(mapping, seen=None):
    """Return a mapping and all that it inherits from, nearest first; none that is in `seen` (ids).

    What is met again adds nothing that the first visit didn't, so each is visited once: the time
    is linear, however cunningly the merge keys are crossed.
    """
    seen = set() if seen is None else seen
    waiting = [mapping]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting.extend(reversed(each.parents))


def inherited(mapping):
    """Give {key: (entry, the mapping in which it is written)}: own keys before the parents'."""
    found = {}
    for each in lineage(mapping):
        for key, entry in each.entries.items():
            found.setdefault(key, (entry, each))
    return found


def _read_bytes(path, named_by):
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(f"there is no file {path}{named_by and f' ({named_by})'}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {reason_of(error)}") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_BYTES:,} bytes: is it a settings file?")
    return content


def _text_of(content, path):
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8 text"
        raise SettingsError(f"{path}:{line}: {problem}") from None
    if found := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        problem = f"the control character U+{ord(found[0]):04X}: is it a settings file?"
        raise SettingsError(f"{path}:{line}: {problem}")
    return text


@dataclass
class _Composer:
    """Turns the parser's events into nodes, checking as it goes."""

    text: str
    file: str
    nodes: int = 0
    # The same, with each alias counted as what it stands for.
    expanded_nodes: int = 0
    # Name → (line, node); the node is None while it is still being read.
    anchors: dict = field(default_factory=dict)

    def documents(self, at_most):
        found = []
        try:
            self.parser = PARSER(self.text)
            while not isinstance(event := self.parser.get_event(), yaml.StreamEndEvent):
                if isinstance(event, yaml.DocumentStartEvent):
                    if len(found) == at_most:
                        raise self._fault(event, "another document (---) begins; join the two")
                    self.anchors.clear()
                    found.append(self._node(self.parser.get_event(), 1, ""))
        except yaml.YAMLError as error:
            raise SettingsError(self._syntax(error)) from None
        return found or [Scalar(None, 1)]

    def _fault(self, event, problem):
        return SettingsError(f"{self.file}:{event.start_mark.line + 1}: {problem}")

    def _node(self, event, depth, name):
        self.nodes += 1
        self.expanded_nodes += 1
        if self.nodes > MAX_NODES:
            raise self._fault(event, f"more than {MAX_NODES:,} keys and values")
        if depth > MAX_DEPTH:
            raise self._fault(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.tag is not None:
            raise self._fault(event, f"the tag {shown(event.tag)} is not read; quotes make text")
        if event.anchor is not None:
            self._open_anchor(event)
        node = self._content(event, depth, name)
        if event.anchor is not None:
            self.anchors[event.anchor] = (event.start_mark.line + 1, node)
        return node

    def _content(self, event, depth, name):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(self._scalar(event), line)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := self.parser.get_event(), yaml.SequenceEndEvent):
                items.append(self._node(inner, depth + 1, name))
            return Sequence(tuple(items), line, 1 + sum(each.size for each in items))
        return self._mapping(line, depth, name)

    def _scalar(self, event):
        if len(event.value) > MAX_CHARACTERS:
            raise self._fault(event, f"a text of {len(event.value):,} characters is too long")
        if not event.implicit[0]:
            return event.value  # In quotes, or a block: text.
        try:
            return plain_value(event.value)
        except ValueError as error:
            raise self._fault(event, error) from None

    def _mapping(self, line, depth, name):
        entries, parents, size = {}, None, 1
        while not isinstance(event := self.parser.get_event(), yaml.MappingEndEvent):
            key = self._key(event, depth)
            node = self._node(self.parser.get_event(), depth + 1, key)
            size += 1 + node.size
            is_merge = key == "<<" and event.implicit[0]
            if (is_merge and parents is not None) or (not is_merge and key in entries):
                raise self._repeated(event, key, entries)
            if is_merge:
                parents = self._parents(event, node)
            else:
                entries[key] = Entry(event.start_mark.line + 1, node)
        return Mapping(name, line, entries, parents or (), size)

    def _key(self, event, depth):
        node = self._node(event, depth + 1, "")
        if not isinstance(node, Scalar):
            raise self._fault(event, "a key must be a word, not a list or a mapping")
        if not isinstance(node.value, str):
            raise self._fault(event, f"the key {event.value or '(empty)'} is not text; quote it")
        if len(node.value) > MAX_KEY_CHARACTERS:
            raise self._fault(event, f"a key of {len(node.value):,} characters is too long")
        return node.value

    def _repeated(self, event, key, entries):
        if key == "<<" and key not in entries:
            return self._fault(event, "a second '<<'; to inherit from several, write <<: [*a, *b]")
        return self._fault(event, f"the key {key!r} stands already at line {entries[key].line}")

    def _parents(self, event, node):
        parents = node.items if isinstance(node, Sequence) else (node,)
        # A set all of whose keys are commented out is null, and may be inherited from.
        parents = tuple(each for each in parents if not is_null(each))
        if not all(isinstance(each, Mapping) for each in parents):
            raise self._fault(event, "'<<' must name a mapping (<<: *name) or a list of mappings")
        return parents

    def _open_anchor(self, event):
        if event.anchor in self.anchors:
            line = self.anchors[event.anchor][0]
            raise self._fault(
                event, f"the anchor {shown('&' + event.anchor)} stands already at line {line}"
            )
        self.anchors[event.anchor] = (event.start_mark.line + 1, None)

    def _alias(self, event):
        if event.anchor not in self.anchors:
            hint = did_you_mean(event.anchor, self.anchors)
            raise self._fault(event, f"no anchor {shown(f'&{event.anchor}')} stands above{hint}")
        _, node = self.anchors[event.anchor]
        if node is None:
            name = shown(f"*{event.anchor}")
            raise self._fault(event, f"{name} stands inside its own anchor: a cycle")
        self.expanded_nodes += node.size
        if self.expanded_nodes > MAX_EXPANDED_NODES:
            problem = f"with its aliases more than {MAX_EXPANDED_NODES:,} keys and values"
            raise self._fault(event, problem)
        return node

    def _syntax(self, error):
        mark = getattr(error, "problem_mark", None)
        if mark is None:
            return f"{self.file}: not YAML: {error}".splitlines()[0]
        line = self.text.split("\n", mark.line + 1)[: mark.line + 1][-1]
        where = f"{self.file}:{mark.line + 1}"
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return f"{where}: a tab in the indentation; YAML wants spaces"
        start = error.context_mark
        begun = start is not None and start.line != mark.line
        context = f" ({error.context}, begun at line {start.line + 1})" if begun else ""
        return f"{where}: not YAML: {_PLAIN_WORDS.get(error.problem, error.problem)}{context}"
