"""Which value counts: defaults < a file's default set < its chosen set < the command line."""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from library.configuration.output import terminal_columns
from library.configuration.schema import (
    COMMAND_LINE,
    DEFAULT,
    Key,
    Keys,
    Value,
    keys_of,
    own_message,
)
from library.configuration.search_space import Domain, read_domain
from library.configuration.yaml_parser import Node, lineage, merged_values, to_python, to_yaml
from library.errors import SettingsError
from library.messages import did_you_mean, shown, unknown_name

DEFAULT_SET = "default"
# Top-level names that start like this are not sets, but hold anchors that sets share.
HELPER_PREFIXES = (".", "x-")
_NO_BREAK = "\u00a0"


class SettingsFile:
    """The named sets of one YAML file.

    All sets are checked, whichever is chosen later: an error shows when it is made, not on another
    machine.

    Attributes:
        file: The path, as it was named.
        sets: The sets by name: mappings.
    """

    def __init__(
        self,
        file: str,
        document: Node,
        keys: Iterable[Key],
        misplaced: Mapping[str, str],
        *,
        has_domains: bool = False,
    ) -> None:
        """Check all sets.

        Args:
            file: The path, for messages.
            document: The parsed file.
            keys: The keys that the file may set.
            misplaced: Names of other keys, and where they belong.
            has_domains: Whether a value may be what a search varies: see search_space.py.

        Raises:
            SettingsError: If a set, a key or a value is wrong.
        """
        self.file = file
        self._has_domains = has_domains
        self.sets: dict[str, Node] = {}
        self._known = {name: each for each in keys for name in each.names}
        self._misplaced = misplaced
        if document.value is None:
            return
        if not isinstance(document.value, dict) or document.parents:
            problem = "expected named sets, such as 'default:' with its keys indented below it"
            raise SettingsError(f"{file}:{document.line}: {problem}")
        checked: set[int] = set()
        for name, node in document.value.items():
            if name.startswith(HELPER_PREFIXES):
                continue
            # An empty set is null.
            self.sets[name] = node if node.value is not None else replace(node, value={})
            if not isinstance(self.sets[name].value, dict):
                problem = f"the set {shown(name)} must hold keys, not {shown(to_python(node))}"
                raise SettingsError(f"{file}:{node.line}: {problem}")
            for mapping in lineage(self.sets[name], checked):
                self._check(name, mapping)

    def _check(self, name: str, mapping: Node) -> None:
        for written, node in mapping.value.items():
            place = self._place(node, name, mapping)
            if written not in self._known:
                if written in self._misplaced:
                    raise SettingsError(f"{written!r} at {place} {self._misplaced[written]}")
                names = [*self._known, *self._misplaced]
                hint = did_you_mean(written, names, "--help lists all keys")
                raise SettingsError(f"unknown key {shown(written)} at {place}{hint}")
            known = self._known[written]
            self._read(known, node, f"{written} at {place}")
            if written != known.name and known.name in mapping.value:
                clash = f"{written} at {place} is another name of {known.name}"
                raise SettingsError(f"{clash}, which is there too; remove one of them")

    def _read(self, key: Key, node: Node, subject: str) -> Any:
        """Return a value of a set as written, checked, or the Domain that it is."""
        value = to_python(node)
        if self._has_domains and (domain := read_domain(key, value, subject)):
            return domain
        key.check(value, subject)
        return value

    def _place(self, node: Node, name: str, owner: Node) -> str:
        """Return where a value of a set is written: file, line and set."""
        origin = "" if owner.name in ("<<", name) else f", inherited from {owner.name}"
        return f"{self.file}:{node.line} (set {name}{origin})"

    def layers(self, name: str) -> dict[str, Value]:
        """Return {key: Value} of a set, over those of the default set.

        Raises:
            SettingsError: If there is no such set. The default set may be missing.
        """
        if name not in self.sets and name != DEFAULT_SET:
            known = {DEFAULT_SET, *list(self.sets)[:50]}
            raise SettingsError(f"{self.file}: {unknown_name('set', name, known)}")
        values: dict[str, Value] = {}
        for each in dict.fromkeys((name, DEFAULT_SET)):
            if each in self.sets:
                for written, (node, owner) in merged_values(self.sets[each]).items():
                    key, place = self._known[written], self._place(node, each, owner)
                    # The nearest comes first, under whichever of its names.
                    values.setdefault(key.name, Value(self._read(key, node, written), place))
        return values

    def listing(self, chosen: str) -> str:
        """Return all sets as text: lines, parents, own values, and a star before the chosen one."""
        lines = [self.file]
        width = max(map(len, self.sets), default=0)
        for name, mapping in self.sets.items():
            parents = ", ".join(each.name for each in mapping.parents)
            inherits = f", inherits {parents}" if parents else ""
            star = "*" if name == chosen else " "
            lines.append(f"{star} {name.ljust(width)}  line {mapping.line}{inherits}")
            # A no-break space keeps a key and its value on one line; to_yaml escapes those in text.
            pairs = [
                f"{written}: {to_yaml(to_python(each))}".replace(" ", _NO_BREAK)
                for written, each in mapping.value.items()
            ]
            text = textwrap.fill(
                ", ".join(pairs) or "no values of its own",
                terminal_columns(),
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines.append(text.replace(_NO_BREAK, " "))
        return "\n".join(lines)


def resolve(model: type[Keys], layers: Mapping[str, Value]) -> dict[str, Value]:
    """Return {key: Value}, checked, of all keys of a model.

    Args:
        model: The keys; other keys in `layers` are ignored.
        layers: The values that replace defaults.

    Raises:
        SettingsError: If a value is invalid.
    """
    values = {}
    for each in keys_of(model):
        found = layers.get(each.name, Value(each.default, DEFAULT))
        subject = f"{each.name} at {found.provenance}"
        if found.provenance == COMMAND_LINE:
            subject = f"--{each.name}"
        if isinstance(found.value, Domain):
            checked = found.value.expanded(each, subject)
        else:
            checked = each.check(each.expand(found.value, subject), subject)
        values[each.name] = Value(checked, found.provenance)
    return values


def make_model(model: type[Keys], values: Mapping[str, Value]) -> Keys:
    """Return a model of the values of its keys, and of any value of those that a search varies.

    Raises:
        SettingsError: If a check of the project's own refuses a combination.
    """
    plain = {name: values[name].value for name in model.model_fields}
    plain = {k: each.first if isinstance(each, Domain) else each for k, each in plain.items()}
    try:
        return model(**plain)
    except ValidationError as error:
        raise SettingsError(own_message(error) or str(error)) from None
