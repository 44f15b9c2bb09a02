import re

import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2, variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from library.models.unsafe_ops import find_unsafe_ops
from tests.models.test_saved_model import save_module, save_tf1_module


def steps_of(folder):
    content = (folder / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return find_unsafe_ops(meta_graph)


def test_what_saves_a_module_does_not_count(tmp_path):
    save_module(tmp_path / "module")
    save_tf1_module(tmp_path / "tf1")
    assert steps_of(tmp_path / "module") == steps_of(tmp_path / "tf1") == []


def test_every_step_that_names_a_file_or_an_address_counts():
    steps = op_def_pb2.OpList.FromString(
        pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())
    ).op
    naming = {
        each.name
        for each in steps
        for name in (*each.input_arg, *each.attr)
        if re.search("file|path|address|prefix|_url|logdir", name.name)
    }
    graph = meta_graph_pb2.MetaGraphDef()
    for each in naming:
        graph.graph_def.node.add(name=each, op=each)
        # As if its output were asked for.
        graph.signature_def["default"].outputs[each].name = f"{each}:0"
    assert len(naming) > 40
    # A table's words, and ways that lead through a tree.
    text = {"InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "CTCBeamSearchDecoder"}
    assert naming - {*find_unsafe_ops(graph)} == text


def save_to(path):
    tf.raw_ops.SaveV2(prefix=path, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.zeros(3)])


def restore_from(path):
    tf.raw_ops.RestoreV2(
        prefix=path, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
    )


def save_the_old_way(path):
    tf.raw_ops.Save(filename=path, tensor_names=["x"], data=[tf.zeros(3)])


def query(path):
    rows = tf.data.experimental.SqlDataset("sqlite", path, "select 1", (tf.int32,))
    return rows.reduce(0, lambda a, b: a + b)


@pytest.mark.parametrize(
    ("reach", "found"),
    [
        (save_to, ["SaveV2"]),
        (restore_from, ["RestoreV2"]),
        (lambda path: tf.function(save_to)(path), ["SaveV2"]),
        (save_the_old_way, ["Save"]),
        (query, ["ReduceDataset", "SqlDataset"]),
    ],
)
def test_what_the_module_itself_does_counts(tmp_path, reach, found):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def call(images):
        reach(str(tmp_path / "written"))
        return tf.reduce_mean(images, [1, 2])

    module.__call__ = call
    tf.saved_model.save(module, str(tmp_path / "module"))
    assert steps_of(tmp_path / "module") == found


def test_what_a_gradient_does_counts(tmp_path):
    module = tf.Module()

    @tf.custom_gradient
    def odd(x):
        def gradient(dy):
            save_to(str(tmp_path / "written"))
            return dy

        return x, gradient

    module.__call__ = tf.function(odd, input_signature=[tf.TensorSpec([None, 6, 6, 3])])
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(tmp_path / "module"), options=options)
    assert steps_of(tmp_path / "module") == ["SaveV2"]


@pytest.fixture
def graph():
    """A graph in the format of TensorFlow 1, that saves and restores one variable."""
    graph = meta_graph_pb2.MetaGraphDef()
    for name, kind, inputs in (
        ("features", "Identity", []),
        ("start", "Const", []),
        ("save/SaveV2", "SaveV2", ["save/Const"]),
        ("save/Identity", "Identity", ["save/Const", "^save/SaveV2"]),
        ("save/RestoreV2", "RestoreV2", ["save/Const"]),
        ("save/Assign", "AssignVariableOp", ["save/RestoreV2:0"]),
        ("save/restore_all", "NoOp", ["^save/Assign"]),
        ("init", "NoOp", []),
    ):
        graph.graph_def.node.add(name=name, op=kind, input=inputs)
    graph.signature_def["default"].outputs["features"].name = "features:0"
    graph.saver_def.restore_op_name = "save/restore_all"
    graph.collection_def["savers"].bytes_list.value.append(graph.saver_def.SerializeToString())
    graph.collection_def["saved_model_main_op"].node_list.value.append("init")
    variable = variable_pb2.VariableDef(variable_name="v", initial_value_name="start:0")
    graph.collection_def["variables"].bytes_list.value.append(variable.SerializeToString())
    return graph


@pytest.mark.parametrize("user", ["features", "start", "init"])
@pytest.mark.parametrize(
    ("used", "kind"), [("^save/Identity", "SaveV2"), ("save/RestoreV2:0", "RestoreV2")]
)
def test_what_a_graph_of_the_first_format_runs_counts(graph, user, used, kind):
    assert find_unsafe_ops(graph) == []
    next(each for each in graph.graph_def.node if each.name == user).input.append(used)
    assert find_unsafe_ops(graph) == [kind]


def test_restoring_must_not_save(graph):
    graph.graph_def.node[-2].input.append("^save/SaveV2")
    assert find_unsafe_ops(graph) == ["SaveV2"]


def test_a_function_that_saves_counts_where_it_is_called(graph):
    inner = graph.graph_def.library.function.add()
    inner.signature.name = "inner"
    inner.node_def.add(name="x", op="SaveV2")
    call = graph.graph_def.node.add(name="call", op="PartitionedCall")
    call.attr["f"].func.name = "inner"
    assert find_unsafe_ops(graph) == []
    graph.signature_def["default"].outputs["called"].name = "call:0"
    assert find_unsafe_ops(graph) == ["SaveV2"]
