"""Defaults < the file's default set < the chosen set < the command line: one frozen model.

A file of another model may name some keys too (`beneath`): they lie between defaults and the file.

Each value carries its provenance: where it was written, or that it is the default.
"""

from dataclasses import dataclass

from pydantic import ValidationError

from library.configuration.documents import Mapping, inherited, is_null, lineage, value_of
from library.configuration.schema import keys_of, own_words
from library.errors import SettingsError
from library.messages import did_you_mean, shown

DEFAULT_SET = "default"
DEFAULT = "default"
COMMAND_LINE = "command line"
# Top-level names that begin so are no sets, but places for anchors that sets share.
HELPER_PREFIXES = (".", "x-")


@dataclass(frozen=True)
class Value:
    """A value and where it comes from: DEFAULT, COMMAND_LINE, or a file, line and set."""

    value: object
    provenance: str


@dataclass(frozen=True)
class Resolved:
    """A frozen model, and the {key: Value} that it was made of (there, None may follow a key)."""

    model: object
    values: dict


@dataclass(frozen=True)
class Sets:
    """The named sets of one YAML file, each key and value checked."""

    file: str
    # Name → Entry of a Mapping, or of None where a set holds nothing.
    entries: dict
    # Spelling → Key: the names of the model's keys, and the other names that they go by.
    known: dict

    @property
    def names(self):
        """The sets' names, in the order of the file."""
        return list(self.entries)

    def line(self, name):
        """Return the line on which a set begins."""
        return self.entries[name].line

    def own(self, name):
        """Give {key: value} of what is written in the set itself."""
        mapping = self._mapping(name)
        return {key: value_of(entry.node) for key, entry in mapping.entries.items()}

    def parents(self, name):
        """Return the names of the sets and helpers that a set inherits from, nearest first."""
        return [each.name for each in self._mapping(name).parents]

    def layer(self, name):
        """Give {key: Value} of a set, with what it inherits. The default set may be missing."""
        if name not in self.entries:
            if name == DEFAULT_SET:
                return {}
            known = sorted({DEFAULT_SET, *self.names[:50]})
            hint = f"{did_you_mean(name, known)} (known: {', '.join(known)})"
            raise SettingsError(f"{self.file}: unknown set {shown(name)}{hint}")
        found = {}
        for key, (entry, owner) in inherited(self._mapping(name)).items():
            # The nearest comes first, under whichever of its names.
            value = Value(value_of(entry.node), _place(self.file, entry, name, owner))
            found.setdefault(self.known[key].name, value)
        return found

    def layers(self, name):
        """Give {key: Value} of a set, with what it leaves to the default set."""
        return self.layer(DEFAULT_SET) | self.layer(name)

    def _mapping(self, name):
        node = self.entries[name].node
        return node if isinstance(node, Mapping) else Mapping(name, node.line, {}, (), 0)


def sets_of(document, file, model, elsewhere, more=()):
    """Return the Sets of a YAML document, each with the keys of `model`, and `more` Keys.

    `elsewhere` says of keys that have no place here where they belong: {key: words}. All sets are
    checked, whichever is chosen later: a slip shows when it is made, not on another machine.
    """
    if is_null(document):
        return Sets(file, {}, {})
    if not isinstance(document, Mapping) or document.parents:
        problem = "named sets are expected here, such as 'default:' with its keys indented below"
        raise SettingsError(f"{file}:{document.line}: {problem}")
    known = {name: each for each in (*keys_of(model), *more) for name in each.names}
    sets, seen = {}, set()
    for name, entry in document.entries.items():
        if name.startswith(HELPER_PREFIXES):
            continue
        sets[name] = entry
        if isinstance(entry.node, Mapping):
            for mapping in lineage(entry.node, seen):
                for key, each in mapping.entries.items():
                    place = _place(file, each, name, mapping)
                    _check(key, each, place, known, elsewhere)
                    if key != known[key].name and known[key].name in mapping.entries:
                        clash = f"{key} at {place} is another name of {known[key].name}"
                        raise SettingsError(f"{clash}, which stands there too; drop one of them")
        elif not is_null(entry.node):
            problem = f"the set {shown(name)} must hold keys, not {shown(value_of(entry.node))}"
            raise SettingsError(f"{file}:{entry.line}: {problem}")
    return Sets(file, sets, known)


def _place(file, entry, name, owner):
    """Say where an entry of a set is written: file, line, set, and the set it comes from."""
    is_own = owner.name in ("<<", name)
    return f"{file}:{entry.line} (set {name}{'' if is_own else f', inherited from {owner.name}'})"


def _check(key, entry, place, known, elsewhere):
    if key in elsewhere:
        raise SettingsError(f"{key!r} at {place} {elsewhere[key]}")
    if key not in known:
        hint = did_you_mean(key, [*known, *elsewhere], "--help lists every key")
        raise SettingsError(f"unknown key {shown(key)} at {place}{hint}")
    known[key].check(value_of(entry.node), f"{key} at {place}")


def resolve(model, sets, set_name, given, beneath=None):
    """Return the Resolved model: defaults < `beneath` < set default < set `set_name` < `given`.

    `sets` is None where there is no file. Of `given` and `beneath`, {key: Value}, those of the
    model are used.
    """
    keys = keys_of(model)
    layers = {each.name: Value(each.default, DEFAULT) for each in keys}
    layers |= beneath or {}
    if sets is not None:
        layers |= sets.layers(set_name)
    layers |= given
    values = {}
    for each in keys:
        value, provenance = layers[each.name].value, layers[each.name].provenance
        values[each.name] = Value(each.check(value, f"{each.name} at {provenance}"), provenance)
    return Resolved(make(model, values), values)


def make(model, values):
    """Return the model of {key: Value}. A check of the project's own may refuse the combination."""
    try:
        return model(**{name: each.value for name, each in values.items()})
    except ValidationError as error:
        raise SettingsError(own_words(error) or str(error)) from None
