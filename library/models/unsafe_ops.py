"""What of a SavedModel's graph would reach outside it: into Python, files or other machines."""

import contextlib
import re

from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2

# Kinds of steps that do. What makes features of pictures needs no data set of its own, either.
# (TextFile only reads a table's words, at first from the module's assets.)
_OUTSIDE = re.compile(
    r"PyFunc|Dataset|Reader|(?<!Text)File(?!name|spec)|Save|Restore|Checkpoint|Record|Debug|Dump|"
    r"SummaryDb|ImportEvent|WriteGraphSummary|Rpc|ImmutableConst|LoadAndRemap|VocabRemap|"
    r"FixedUnigram|Skipgram"
)
# Steps that every SavedModel has: to save its weights, and to restore them when it is loaded.
_SAVING = ("SaveV2", "MergeV2Checkpoints")
_SAVERS = (*_SAVING, "RestoreV2")


def find_unsafe_ops(meta_graph):
    """Return the kinds of those steps that running the module would take, sorted.

    Steps that save and restore count only where more than the saver leads to them.
    """
    graph = meta_graph.graph_def
    functions = graph.library.function
    steps = [*graph.node, *(node for each in functions for node in each.node_def)]
    found = {each.op for each in steps if _reaches_outside(each)}
    called = {*meta_graph.object_graph_def.concrete_functions}
    called |= {each.gradient_func for each in graph.library.gradient}
    called |= {each.gradient_func for each in graph.library.registered_gradients}
    called = called.union(*(_runs(node) for each in functions for node in each.node_def))
    run = _run_by_loading(meta_graph)
    for kind in _SAVERS:
        inside = {f.signature.name for f in functions if any(n.op == kind for n in f.node_def)}
        first = {each.name for each in graph.node if _runs(each) & {kind, *inside}}
        also = {meta_graph.saver_def.restore_op_name} if kind in _SAVING else set()
        if inside & called or _that_follow(graph.node, first) & (run | also):
            found.add(kind)
    return sorted(found)


def _reaches_outside(node):
    if node.op == "PrintV2":
        # Printing to a file appends to it.
        return node.attr["output_stream"].s.startswith(b"file:")
    return node.op not in _SAVERS and bool(_OUTSIDE.search(node.op))


def _runs(node):
    """Return what the node runs: its own kind, and functions."""
    attributes = node.attr.values()
    listed = {function.name for each in attributes for function in each.list.func}
    return {node.op, *listed, *(each.func.name for each in attributes)}


def _run_by_loading(meta_graph):
    """Return the names of nodes that a graph in the format of TensorFlow 1 runs, but for saver's:

    what signatures give, what initializes, and what variables begin with.
    """
    texts = [str(each) for each in meta_graph.signature_def.values()]
    for name, each in meta_graph.collection_def.items():
        texts.append(str(each.node_list))
        for value in each.bytes_list.value if name != "savers" else ():
            with contextlib.suppress(DecodeError):
                texts.append(str(variable_pb2.VariableDef.FromString(value)))
    return {name.split(":")[0] for text in texts for name in re.findall('"([^"]*)"', text)}


def _that_follow(nodes, names):
    """Return the names of nodes, and of all that need what they give."""
    needed_by = {}
    for node in nodes:
        for each in node.input:
            needed_by.setdefault(each.lstrip("^").split(":")[0], set()).add(node.name)
    found, new = set(names), set(names)
    while new:
        new = set().union(*(needed_by.get(each, ()) for each in new)) - found
        found |= new
    return found
