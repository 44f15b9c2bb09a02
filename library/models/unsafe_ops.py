"""Ops in a SavedModel's graph that are not known to only compute.

Others could reach outside it, into Python, files or other machines, or end the process.
"""

import contextlib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2

from library.dataset.sources.base import leads_outside

# A module that you trust may need others: add them here.
_TRUSTED_OPS: frozenset[str] = frozenset()
# Groups of TensorFlow's ops that compute values from values, or keep them in variables and tables.
_GROUPS = (
    *("array", "bitwise", "control_flow", "ctc", "functional", "image", "linalg", "list", "lookup"),
    *("manip", "map", "math", "nn", "optional", "ragged_array", "ragged_conversion"),
    *("ragged_math", "random", "random_index_shuffle", "resource_variable", "rnn", "set", "sparse"),
    *("special_math", "spectral", "state", "stateful_random", "stateless_random"),
    *("stateless_random_ops_v2", "string", "uniform_quant"),
)
# Safe ones of other groups: in loops of TensorFlow 1, checks, and what is said about them.
_MORE = re.compile(
    r"TensorArray\w*|Stack\w*|Dynamic(Partition|Stitch)|ParallelDynamicStitch|Assert|Print(V2)?|"
    r"Timestamp|ShardedFile(name|spec)|DecodeRaw|DecodePaddedRaw|StringToNumber|\w+Summary(V2)?"
)
# In these groups, but they read files, reach other machines or debuggers, or end the process.
_EXCEPTIONS = {"Abort", "ImmutableConst", "RemoteCall"}
_EXCEPTED = re.compile(r"Debug|^Write\w*Summary")
# Every SavedModel has these ops, to save its weights and to restore them when it is loaded.
_SAVING = ("SaveV2", "MergeV2Checkpoints")
_SAVERS = (*_SAVING, "RestoreV2")


_TABLE = "InitializeTableFromTextFile"


def find_unsafe_ops(meta_graph: Any) -> list[str]:
    """Return the kinds of unsafe ops in a MetaGraphDef, sorted.

    Ops that save and restore count only if something besides the saver runs them.
    """
    graph = meta_graph.graph_def
    functions = graph.library.function
    nodes = [*graph.node, *(node for each in functions for node in each.node_def)]
    found = {each.op for each in nodes if _is_unsafe(each)}
    called = {*meta_graph.object_graph_def.concrete_functions}
    called |= {each.gradient_func for each in graph.library.gradient}
    called |= {each.gradient_func for each in graph.library.registered_gradients}
    called = called.union(*(_runs(node) for each in functions for node in each.node_def))
    run = _run_by_loading(meta_graph)
    for kind in _SAVERS:
        inside = {f.signature.name for f in functions if any(n.op == kind for n in f.node_def)}
        first = {each.name for each in graph.node if _runs(each) & {kind, *inside}}
        restore = {meta_graph.saver_def.restore_op_name} if kind in _SAVING else set()
        if inside & called or _dependents(graph.node, first) & (run | restore):
            found.add(kind)
    if _reads_other_tables(meta_graph):
        found.add(_TABLE)
    return sorted(found)


def _reads_other_tables(meta_graph: Any) -> bool:
    """Return whether a lookup table is read from another file than an asset of the module."""
    graph, objects = meta_graph.graph_def, meta_graph.object_graph_def
    if any(leads_outside(each.filename) for each in meta_graph.asset_file_def):
        return True
    assets = {each.tensor_info.name.split(":")[0] for each in meta_graph.asset_file_def}
    called = set().union(*(_runs(node) for f in graph.library.function for node in f.node_def))
    # Where a node finds the name of the file: the position among its inputs, by its kind.
    positions = {_TABLE: 1, f"{_TABLE}V2": 1}
    for function in graph.library.function:
        name, arguments = function.signature.name, [e.name for e in function.signature.input_arg]
        for node in function.node_def:
            if node.op not in (_TABLE, f"{_TABLE}V2"):
                continue
            file = _input_name(node, 1)
            if name not in objects.concrete_functions or name in called or file not in arguments:
                return True
            bound = objects.concrete_functions[name].bound_inputs
            positions[name] = arguments.index(file)
            # The last arguments are bound.
            at = positions[name] - len(arguments) + len(bound)
            if at < 0 or objects.nodes[bound[at]].WhichOneof("kind") != "asset":
                return True
    # Otherwise TensorFlow loads functions only, and runs no node of the graph.
    return not meta_graph.HasField("object_graph_def") and any(
        _input_name(node, positions[kind]) not in assets
        for node in graph.node
        for kind in _runs(node) & positions.keys()
    )


def _input_name(node: Any, position: int) -> str:
    inputs = [*node.input[position : position + 1], ""]
    return inputs[0].split(":")[0]


def _is_unsafe(node: Any) -> bool:
    if node.op == "PrintV2":
        # Printing to a file appends to it.
        return node.attr["output_stream"].s.startswith(b"file:")
    return node.op not in _SAVERS and node.op not in _allowed_ops()


@lru_cache(maxsize=1)
def _allowed_ops() -> frozenset[str]:
    """Return the kinds of ops that a module may have."""
    names = set(_TRUSTED_OPS)
    for group in _GROUPS:
        suffix = "" if "_ops" in group else "_ops"
        module = import_module(f"tensorflow.python.ops.gen_{group}{suffix}")
        names |= {each for each in vars(module) if each[0].isupper()}
    names |= {each for each in dir(tf.raw_ops) if _MORE.fullmatch(each)}
    return frozenset(each for each in names - _EXCEPTIONS if not _EXCEPTED.search(each))


def _runs(node: Any) -> set[str]:
    """Return the kind of the node, and the names of functions that it calls."""
    attributes = node.attr.values()
    listed = {function.name for each in attributes for function in each.list.func}
    return {node.op, *listed, *(each.func.name for each in attributes)}


def _run_by_loading(meta_graph: Any) -> set[str]:
    """Return names of nodes that a TensorFlow 1 graph runs, apart from the saver's.

    They are outputs of signatures, initializers, and initial values of variables.
    """
    texts = [str(each) for each in meta_graph.signature_def.values()]
    for name, each in meta_graph.collection_def.items():
        texts.append(str(each.node_list))
        for value in each.bytes_list.value if name != "savers" else ():
            with contextlib.suppress(DecodeError):
                texts.append(str(variable_pb2.VariableDef.FromString(value)))
    return {name.split(":")[0] for text in texts for name in re.findall('"([^"]*)"', text)}


def _dependents(nodes: Iterable[Any], names: set[str]) -> set[str]:
    """Return these names, and those of all nodes that depend on them."""
    needed_by: dict[str, set[str]] = {}
    for node in nodes:
        for each in node.input:
            needed_by.setdefault(each.lstrip("^").split(":")[0], set()).add(node.name)
    found, new = set(names), set(names)
    while new:
        new = set().union(*(needed_by.get(each, set()) for each in new)) - found
        found |= new
    return found
