"""Ops in a SavedModel's graph that reach outside it: into Python, files or other machines.

A list of forbidden kinds is no sandbox; pinning the hash of a module that you trust is safer.
"""

import contextlib
import re
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2

# Computing features of images needs no data set either. (TextFile ops only read a table's words,
# from the module's assets.)
_UNSAFE = re.compile(
    r"PyFunc|Dataset|Reader|(?<!Text)File(?!name|spec)|Save|Restore|Checkpoint|Record|Debug|Dump|"
    r"SummaryDb|ImportEvent|WriteGraphSummary|Rpc|ImmutableConst|LoadAndRemap|VocabRemap|"
    r"FixedUnigram|Skipgram"
)
# Every SavedModel has these ops, to save its weights and to restore them when it is loaded.
_SAVING = ("SaveV2", "MergeV2Checkpoints")
_SAVERS = (*_SAVING, "RestoreV2")


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
    return sorted(found)


def _is_unsafe(node: Any) -> bool:
    if node.op == "PrintV2":
        # Printing to a file appends to it.
        return node.attr["output_stream"].s.startswith(b"file:")
    return node.op not in _SAVERS and bool(_UNSAFE.search(node.op))


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
