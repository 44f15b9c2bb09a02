"""Weights in a file of any of several kinds, as names and arrays."""

from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from library.errors import CheckpointError
from library.files import current_folder
from library.training.snapshots import read_snapshot
from library.transfer.blocks import parts_of
from library.transfer.names import distinct

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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"checkpoint_path: {path} cannot be read: {reason}") from error
    what = "is none of these" if path.exists() else "does not exist"
    raise CheckpointError(f"checkpoint_path: {path} {what}: it must be {KINDS}{_nearest(path)}")


def _nearest(path):
    """Give a hint where the path is that of a run, or of one of a checkpoint's files."""
    for near in (path / "best", path.parent / "best", path.parent / path.stem):
        if (near / "model.keras").is_file() or Path(f"{near}.index").is_file():
            return f"; did you mean {near}?"
    return ""


def _from_network(network):
    return {
        f"{part.name}/{name}": np.asarray(variable)
        for part in parts_of(network)
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
        names = distinct(each.full_name for each in attributes)
        keys = dict(zip((each.checkpoint_key for each in attributes), names, strict=True))
    return {
        name: reader.get_tensor(key)
        for key, name in keys.items()
        if not any(each in key for each in _BESIDE) and name.split("/")[-1] not in _SLOTS
    }
