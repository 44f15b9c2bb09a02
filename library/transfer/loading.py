"""Weights from elsewhere into a network, by name: what was loaded, what was left out, and why."""

from collections import Counter
from dataclasses import dataclass

from library.counted import counted
from library.errors import CheckpointError
from library.transfer.blocks import find_parts, parts_of
from library.transfer.weight_files import read_weights

_LISTED = 10


@dataclass(frozen=True)
class Row:
    """What became of one variable of the network."""

    part: str
    variable: str
    # Empty if it was loaded.
    why_not: str


@dataclass(frozen=True)
class Loading:
    """What became of all variables of a network, and what was in the file beside them."""

    path: str
    rows: tuple
    unused: tuple

    def lines(self):
        """Give the lines of a table: what was loaded as a whole, what was left out by layer."""
        loaded = sum(not each.why_not for each in self.rows)
        yield f"loaded {loaded} of {len(self.rows)} variables from {self.path}"
        outermost = Counter(each.part.split("/")[0] for each in self.rows if not each.why_not)
        for name, count in outermost.items():
            yield f"  loaded    {name}: {counted(count, 'variable')}"
        left_out = dict.fromkeys((each.part, each.why_not) for each in self.rows if each.why_not)
        for part, why_not in left_out:
            yield f"  left out  {part}: {why_not}"
        if self.unused:
            yield f"  not used  {_listed(self.unused)}"


def load_weights(network, path, exclude_scopes=()):
    """Assign the weights in `path` to the network's variables of the same name and shape.

    `path` is a snapshot's folder or .keras file, a .weights.h5 or a TensorFlow checkpoint. Parts
    that `exclude_scopes` names (see `find_parts`) are left as they are. Gives a Loading. Raises
    CheckpointError if nothing fits, SettingsError for a scope that names nothing.
    """
    parts = parts_of(network)
    excluded = {e.name for e in find_parts(parts, exclude_scopes, "checkpoint_exclude_scopes")}
    weights = read_weights(path)
    names = _Names(weights)
    rows, used = [], set()
    for part in parts:
        for numbered, (name, variable) in zip(part.numbered, part.variables.items(), strict=True):
            if part.name in excluded:
                why_not = "excluded by checkpoint_exclude_scopes"
            else:
                found = names.find((part.name, name), numbered)
                why_not = _assign(variable, weights.get(found))
                used.add(found)
            rows.append(Row(part.name, name, why_not))
    if all(row.why_not for row in rows):
        raise CheckpointError(
            f"nothing in {path} fits this network: it holds {_listed(list(weights), 3)}, the "
            f"network has {_listed([f'{r.part}/{r.variable}' for r in rows], 3)}"
        )
    unused = dict.fromkeys(each.rpartition("/")[0] for each in weights if each not in used)
    return Loading(str(path), tuple(rows), tuple(unused))


class _Names:
    """The names in a file, to be found whole or by their ends."""

    def __init__(self, names):
        self.whole = set(names)
        self.by_end = {}
        for name in names:
            words = name.split("/")
            for start in range(len(words) - 1):
                self.by_end.setdefault("/".join(words[start:]), []).append(name)

    def find(self, *names):
        """Give the first of the names that is in the file, also where the base has another name.

        Names are (layer, name within it): of the layer's name at least the last word must fit.
        """
        for layer, name in names:
            if f"{layer}/{name}" in self.whole:
                return f"{layer}/{name}"
            candidates = self.by_end.get(f"{layer.rpartition('/')[2]}/{name}", ())
            if len(candidates) == 1:
                return candidates[0]
        return None


def _assign(variable, value):
    """Assign the value if it fits. Give why not, or nothing."""
    if value is None:
        return "not in the file"
    if tuple(value.shape) != tuple(variable.shape):
        return f"shape {tuple(value.shape)} in the file, {tuple(variable.shape)} here"
    variable.assign(value)
    return ""


def _listed(names, limit=_LISTED):
    more = len(names) - limit
    return ", ".join(map(str, names[:limit])) + (f" and {more} more" if more > 0 else "")
