"""Defaults < the file's default set < the chosen set < the command line: one frozen model.

Each value carries its provenance: where it was written, or that it is the default.
"""

from dataclasses import dataclass

from library.choices import choose, nearest
from library.configuration.documents import Mapping, Scalar, inherited, value_of
from library.configuration.keys import keys_of
from library.errors import SettingsError

DEFAULT_SET = "default"
# Top-level names that begin so are no sets, but places for anchors that sets share.
HELPER_PREFIXES = (".", "x-")


@dataclass(frozen=True)
class Value:
    """A value and where it comes from."""

    value: object
    provenance: str


@dataclass(frozen=True)
class Sets:
    """The named sets of one YAML file."""

    file: str
    sets: dict

    def layer(self, name):
        """Give {key: Value} of a set, with what it inherits."""
        chosen = choose(f"set in {self.file}", name, {DEFAULT_SET: None} | self.sets)
        if chosen is None:
            return {}
        found = {}
        for key, (entry, owner) in inherited(chosen).items():
            note = f", inherited from {owner.name}" if owner.name not in ("<<", name) else ""
            place = f"{self.file}:{entry.line} (set {name}{note})"
            found[key] = Value(value_of(entry.node), place)
        return found


@dataclass(frozen=True)
class Resolved:
    """A model, and for each of its keys the Value that was given for it (None may follow a key)."""

    model: object
    values: dict


def sets_of(document, file, model, elsewhere):
    """Give the Sets of a YAML document, every key and value of every set checked.

    `elsewhere` says of keys that have no place here where they belong: {key: words}.
    """
    if isinstance(document, Scalar) and document.value is None:
        return Sets(file, {})
    if not isinstance(document, Mapping) or document.parents:
        words = "named sets are expected, such as 'default:' with its keys indented below"
        raise SettingsError(f"{file}:{document.line}: {words}")
    known = {each.name: each for each in keys_of(model)}
    sets = {}
    for name, entry in document.entries.items():
        if name.startswith(HELPER_PREFIXES):
            continue
        if isinstance(entry.node, Scalar) and entry.node.value is None:
            sets[name] = None
            continue
        if not isinstance(entry.node, Mapping):
            raise SettingsError(f"{file}:{entry.line}: the set {name!r} holds no keys")
        for key, (inner, owner) in inherited(entry.node).items():
            if owner is entry.node or owner.name not in document.entries:
                _check_entry(file, name, key, inner, known, elsewhere)
        sets[name] = entry.node
    return Sets(file, sets)


def _check_entry(file, name, key, entry, known, elsewhere):
    where = f" at {file}:{entry.line} (set {name})"
    if key in elsewhere:
        raise SettingsError(f"{key!r}{where} {elsewhere[key]}")
    if key not in known:
        near = nearest(key, [*known, *elsewhere])
        hint = f"did you mean {near!r}?" if near else "--help lists every key"
        raise SettingsError(f"unknown key {key!r}{where}; {hint}")
    known[key].check(value_of(entry.node), where)


def resolve(model, sets, set_name, given):
    """Give a Resolved model: defaults < set default < set `set_name` < `given` ({key: Value})."""
    values = {each.name: Value(each.default, "default") for each in keys_of(model)}
    if sets is not None:
        values |= sets.layer(DEFAULT_SET) | sets.layer(set_name)
    values |= given
    checked = {
        each.name: Value(
            each.check(values[each.name].value, f" at {values[each.name].provenance}"),
            values[each.name].provenance,
        )
        for each in keys_of(model)
    }
    return Resolved(model(**{name: each.value for name, each in checked.items()}), checked)
