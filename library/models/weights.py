"""Weights from elsewhere, assigned to a network by name: what was loaded or skipped, and why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from library.saving.snapshots import load_network, read_snapshot
from library.saving.weights_file import check_weights

_LISTED = 10
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What optimizers and savers store in a checkpoint beside the weights.
_NO_WEIGHTS = ("optimizer/", "save_counter", "global_step", ".OPTIMIZER_SLOT")
_SLOTS = {"Adam", "Adam_1", "Momentum", "RMSProp", "RMSProp_1", "ExponentialMovingAverage"}
_SOURCES = "a snapshot's folder, a .keras or .weights.h5 file or a TensorFlow checkpoint"


@dataclass(frozen=True)
class LoadingResult:
    """What happened to all variables of a network, and what in the file was not used.

    Attributes:
        path: The file.
        reasons: (layer, variable) → why it was not loaded, or "" if it was.
        unused: The layers in the file with variables that were not used.
    """

    path: str
    reasons: dict[tuple[str, str], str]
    unused: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield the lines of a table: what was loaded in sum, what was skipped by layer."""
        by_layer = [(layer, reason) for (layer, _), reason in self.reasons.items()]
        loaded = Counter(layer.split("/")[0] for layer, reason in by_layer if not reason)
        yield f"loaded {loaded.total()} of {len(by_layer)} variables from {self.path}"
        for name, count in loaded.items():
            yield f"  loaded    {name}: {counted(count, 'variable')}"
        for layer, reason in dict.fromkeys(each for each in by_layer if each[1]):
            yield f"  skipped   {layer}: {reason}"
        if self.unused:
            yield f"  not used  {_listed(self.unused)}"


def load_weights(
    network: keras.Model, path: str | Path, exclude_scopes: Sequence[str] = ()
) -> LoadingResult:
    """Assign weights from a file to the network's variables of the same name and shape.

    Args:
        network: The network.
        path: A snapshot's folder, a .keras or .weights.h5 file, or a TensorFlow checkpoint.
        exclude_scopes: Layers to leave as they are; see `select_layers`.

    Raises:
        CheckpointError: Nothing fits, or the file cannot be read.
        SettingsError: A scope names no layer.
    """
    layers = list_layers(network)
    excluded = {e.name for e in select_layers(layers, exclude_scopes, "checkpoint_exclude_scopes")}
    weights = read_weights(path)
    names_by_end = _names_by_end(weights)
    reasons: dict[tuple[str, str], str] = {}
    used = set()
    for layer in layers:
        for numbered, (name, variable) in zip(layer.numbered, layer.variables.items(), strict=True):
            reason = "excluded by checkpoint_exclude_scopes"
            if layer.name not in excluded:
                found = _find(names_by_end, layer.name, name) or _find(names_by_end, *numbered)
                reason = _assign(variable, weights.get(found))
                used.add(found)
            reasons[layer.name, name] = reason
    if all(reasons.values()):
        raise CheckpointError(
            f"nothing in {path} fits this network: the file has {_listed(list(weights), 3)}, the "
            f"network {_listed(['/'.join(each) for each in reasons], 3)}"
        )
    unused = dict.fromkeys(each.rpartition("/")[0] for each in weights if each not in used)
    return LoadingResult(str(path), reasons, tuple(unused))


def _names_by_end(names: Iterable[str]) -> dict[str, list[str]]:
    """Return {end of a name, of two words or more: the names with this end}."""
    by_end: dict[str, list[str]] = {}
    for name in names:
        words = name.split("/")
        for start in range(len(words) - 1):
            by_end.setdefault("/".join(words[start:]), []).append(name)
    return by_end


def _find(names_by_end: dict[str, list[str]], layer: str, name: str) -> str:
    """Return the name in the file of a layer's variable, or "".

    Of the layer's name the last word suffices, because bases have other names elsewhere.
    """
    whole = f"{layer}/{name}"
    if whole in names_by_end.get(whole, ()):
        return whole
    found = names_by_end.get(f"{layer.rpartition('/')[2]}/{name}", [])
    return found[0] if len(found) == 1 else ""


def _assign(variable: keras.Variable, value: np.ndarray | None) -> str:
    """Assign the value if it fits. Return why it does not, or ""."""
    if value is None:
        return "not in the file"
    if tuple(value.shape) != tuple(variable.shape):
        return f"shape {tuple(value.shape)} in the file, {tuple(variable.shape)} here"
    variable.assign(value)
    return ""


def _listed(names: Sequence[str], limit: int = _LISTED) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Return the weights in a file by name.

    Names are those of `list_layers` and their variables, as far as the file has them
    (`scores/kernel`); a .weights.h5 file numbers the variables of a layer (`scores/0`).

    Args:
        path: A snapshot's folder, a .keras or .weights.h5 file, or a TensorFlow checkpoint.

    Raises:
        CheckpointError: It is none of these, or damaged.
    """
    path = Path(path)
    if (current_folder(path) / "model.keras").is_file():
        return _from_network(read_snapshot(path).network)
    try:
        if path.suffix == ".keras" and path.is_file():
            return _from_network(load_network(path))
        if path.suffix == ".h5" and path.is_file():
            check_weights(path, path.stat().st_size)
            return _from_h5(path)
        checkpoint = tf.train.latest_checkpoint(str(path)) if path.is_dir() else str(path)
        if checkpoint and Path(f"{checkpoint}.index").is_file():
            return _from_checkpoint(tf.train.load_checkpoint(checkpoint))
    except Exception as error:
        # Keras, h5py and TensorFlow raise errors of their own.
        raise CheckpointError(
            f"checkpoint_path: {path} cannot be read: {first_line(error)}"
        ) from error
    problem = f"is not {_SOURCES}" if path.exists() else f"does not exist; it must be {_SOURCES}"
    raise CheckpointError(f"checkpoint_path: {path} {problem}{_nearby(path)}")


def _nearby(path: Path) -> str:
    """Return a hint if the path is a run, or one of a checkpoint's files."""
    for near in (path / "best", path.parent / "best", path.parent / path.stem):
        if (near / "model.keras").is_file() or Path(f"{near}.index").is_file():
            return f"; did you mean {near}?"
    return ""


def _from_network(network: keras.Model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{name}": np.asarray(variable)
        for layer in list_layers(network)
        for name, variable in layer.variables.items()
    }


def _from_h5(path: Path) -> dict[str, np.ndarray]:
    found = {}

    def visit(group: h5py.Group, prefix: str) -> None:
        """Collect the variables of a layer and of the layers inside it."""
        name = prefix
        if "vars" in group:
            # The outermost name is that of the network itself.
            own = str(group["vars"].attrs.get("name", ""))
            name = f"{prefix}{own}/" if group.name != "/" else ""
            found.update({f"{name}{k}": np.asarray(value) for k, value in group["vars"].items()})
        for key in group:
            if key != "vars" and isinstance(group[key], h5py.Group):
                visit(group[key], name)

    with h5py.File(path) as file:
        visit(file, "")
    if not found:
        raise ValueError("it is not a .weights.h5 file of Keras 3")
    return found


def _from_checkpoint(reader: Any) -> dict[str, np.ndarray]:
    keys: Mapping[str, str] = {key: key for key in reader.get_variable_to_shape_map()}
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
        if not any(each in key for each in _NO_WEIGHTS) and name.split("/")[-1] not in _SLOTS
    }
