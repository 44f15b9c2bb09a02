"""Weights from elsewhere into a network, by name: what was loaded, what was left out, and why."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from library.errors import CheckpointError, first_line
from library.files import current_folder
from library.messages import counted
from library.models.blocks import list_layers, select_layers
from library.models.saved_model import unique_names
from library.saving.snapshots import read_snapshot

_LISTED = 10


@dataclass(frozen=True)
class LoadedVariable:
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
        """Return the lines of a table: what was loaded as a whole, what was left out by layer."""
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
    that `exclude_scopes` names (see `select_layers`) are left as they are. Returns a Loading.
    Raises CheckpointError if nothing fits, SettingsError for a scope that names nothing.
    """
    parts = list_layers(network)
    excluded = {e.name for e in select_layers(parts, exclude_scopes, "checkpoint_exclude_scopes")}
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
            rows.append(LoadedVariable(part.name, name, why_not))
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
        """Return the first of the names that is in the file, also where the base has another name.

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


_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What optimizers and savers keep beside the weights.
_BESIDE = ("optimizer/", "save_counter", "global_step", ".OPTIMIZER_SLOT")
_SLOTS = {"Adam", "Adam_1", "Momentum", "RMSProp", "RMSProp_1", "ExponentialMovingAverage"}
KINDS = "a snapshot's folder, a .keras or .weights.h5 file or a TensorFlow checkpoint"


def read_weights(path):
    """Give {name: array} for a snapshot, a .keras or .weights.h5 file or a TensorFlow checkpoint.

    Names are those of Parts and their variables, as far as the file knows them: `scores/kernel`.
    A .weights.h5 file has numbers for the variables of a layer: `scores/0`. Raises CheckpointError.
    """
    path = Path(path)
    if (current_folder(path) / "model.keras").is_file():
        return _from_network(read_snapshot(path).network)
    try:
        if path.suffix == ".keras" and path.is_file():
            return _from_network(keras.models.load_model(path, compile=False))
        if path.suffix == ".h5" and path.is_file():
            return _from_h5(path)
        checkpoint = tf.train.latest_checkpoint(str(path)) if path.is_dir() else str(path)
        if checkpoint and Path(f"{checkpoint}.index").is_file():
            return _from_checkpoint(tf.train.load_checkpoint(checkpoint))
    except Exception as error:
        # Keras, h5py and TensorFlow each raise errors of their own.
        raise CheckpointError(
            f"checkpoint_path: {path} cannot be read: {first_line(error)}"
        ) from error
    what = "is none of these" if path.exists() else "does not exist"
    raise CheckpointError(f"checkpoint_path: {path} {what}: it must be {KINDS}{_nearest(path)}")


def _nearest(path):
    """Return a hint where the path is that of a run, or of one of a checkpoint's files."""
    for near in (path / "best", path.parent / "best", path.parent / path.stem):
        if (near / "model.keras").is_file() or Path(f"{near}.index").is_file():
            return f"; did you mean {near}?"
    return ""


def _from_network(network):
    return {
        f"{part.name}/{name}": np.asarray(variable)
        for part in list_layers(network)
        for name, variable in part.variables.items()
    }


def _from_h5(path):
    found = {}

    def visit(group, prefix):
        """Collect the variables of a layer and of the layers inside it."""
        name = prefix
        if "vars" in group:
            # The outermost name is that of the network itself.
            own = str(group["vars"].attrs.get("name", ""))
            name = f"{prefix}{own}/" if group.name != "/" else ""
            found.update(
                {f"{name}{each}": np.asarray(group["vars"][each]) for each in group["vars"]}
            )
        for key in group:
            if key != "vars" and isinstance(group[key], h5py.Group):
                visit(group[key], name)

    with h5py.File(path) as file:
        visit(file, "")
    if not found:
        raise ValueError("it is no .weights.h5 file of Keras 3")
    return found


def _from_checkpoint(reader):
    keys = {key: key for key in reader.get_variable_to_shape_map()}
    if _OBJECT_GRAPH in keys:
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
            reader.get_tensor(_OBJECT_GRAPH)
        )
        attributes = [each for node in graph.nodes for each in node.attributes if each.full_name]
        names = unique_names(each.full_name for each in attributes)
        keys = dict(zip((each.checkpoint_key for each in attributes), names, strict=True))
    return {
        name: reader.get_tensor(key)
        for key, name in keys.items()
        if not any(each in key for each in _BESIDE) and name.split("/")[-1] not in _SLOTS
    }
