import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2, variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

from library.errors import UserError
from library.models.saved_model import load_module, unique_names
from library.models.unsafe_ops import find_unsafe_ops
from tests.helpers.hub_modules import IMAGES, features_of, save_module, save_tf1_module


def test_load_module_tf2(tmp_path):
    save_module(tmp_path)
    module = load_module(tmp_path)
    assert np.allclose(module.call(IMAGES, training=False), features_of(IMAGES), atol=1e-5)
    assert sorted(zip(module.are_trainable, (v.name for v in module.variables), strict=True)) == [
        (False, "block_1/mean:0"),
        (True, "block_1/kernel:0"),
    ]
    assert module.image_size is None
    assert any(module.are_trainable)
    kernel = module.variables[module.are_trainable.index(True)]
    assert float(module.regularization_losses[0]()) == pytest.approx(
        0.5 * np.sum(kernel.numpy() ** 2)
    )


def test_image_size(tmp_path):
    save_module(tmp_path, image_size=(6, 7))
    assert load_module(tmp_path).image_size == (6, 7)


def test_load_module_tf1(tmp_path):
    save_tf1_module(tmp_path / "module")
    module = load_module(tmp_path / "module")
    assert np.allclose(module.call(IMAGES, training=False), features_of(IMAGES), atol=1e-5)
    assert module.image_size == (6, 6)
    assert len(module.variables) == 1
    assert not any(module.are_trainable)


def test_another_saved_model_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UserError, match="is not a TensorFlow Hub module"):
        load_module(tmp_path)


def test_damaged_graph_is_named(tmp_path):
    save_module(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff nothing")
    with pytest.raises(UserError, match=r"saved_model\.pb"):
        load_module(tmp_path)


def test_damaged_weights_are_one_line(tmp_path):
    save_module(tmp_path)
    (tmp_path / "variables" / "variables.index").write_bytes(b"nothing")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))) as caught:
        load_module(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_damaged_module_in_the_cache_names_the_folder_to_delete(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "module"
    save_module(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:20])
    with pytest.raises(UserError, match=f"; delete {folder}"):
        load_module(folder)


@pytest.mark.parametrize(
    ("reach", "word"),
    [
        (lambda: tf.io.write_file("/somewhere", "something"), "WriteFile"),
        (lambda: tf.print("something", output_stream="file:///somewhere"), "PrintV2"),
        (lambda: tf.data.TextLineDataset("/etc/passwd").reduce("", lambda a, b: a + b), "TextLine"),
        (lambda: tf.numpy_function(lambda: 1.0, [], tf.float64), "PyFunc"),
        (lambda: tf.raw_ops.Abort(error_msg="the end"), "Abort"),
        (
            lambda: tf.raw_ops.DecodeProtoV2(
                bytes="",
                message_type="a",
                field_names=[],
                output_types=[],
                descriptor_source="/etc/passwd",
            ),
            "DecodeProtoV2",
        ),
        (lambda: tf.io.matching_files("/etc/*"), "MatchingFiles"),
        (
            lambda: tf.raw_ops.ImmutableConst(
                dtype=tf.int8, shape=[1], memory_region_name="/etc/fstab"
            ),
            "ImmutableConst",
        ),
    ],
)
def test_unsafe_graph_is_refused(tmp_path, reach, word):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def call(images):
        reach()
        return tf.reduce_mean(images, [1, 2])

    module.__call__ = call
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match=f"refused.*{word}"):
        load_module(tmp_path)


def test_graph_that_prints_is_loaded(tmp_path):
    module = tf.train.Checkpoint()

    @tf.function(input_signature=[tf.TensorSpec([None, 6, 6, 3])])
    def call(images):
        tf.print("a batch")
        return tf.reduce_mean(images, [1, 2])

    module.__call__ = call
    module.trainable_variables = []
    tf.saved_model.save(module, str(tmp_path))
    assert np.allclose(load_module(tmp_path).call(IMAGES, False), IMAGES.mean((1, 2)), atol=1e-6)


def test_several_outputs_are_refused(tmp_path):
    module = tf.train.Checkpoint()
    module.__call__ = tf.function(
        lambda images: (images, images), input_signature=[tf.TensorSpec([None, 6, 6, 3])]
    )
    module.trainable_variables = []
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(UserError, match="tuple"):
        load_module(tmp_path).call(IMAGES, training=False)


def unsafe_ops_of(folder):
    content = (folder / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return find_unsafe_ops(meta_graph)


def test_ops_of_the_saver_are_safe(tmp_path):
    save_module(tmp_path / "module")
    save_tf1_module(tmp_path / "tf1")
    assert unsafe_ops_of(tmp_path / "module") == unsafe_ops_of(tmp_path / "tf1") == []


def test_every_op_with_a_file_or_an_address_is_unsafe():
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
    # The second kind of table, found as the first, and ways that lead through a tree.
    text = {"InitializeTableFromTextFileV2", "CTCBeamSearchDecoder"}
    assert naming - {*find_unsafe_ops(graph)} == text


def save_module_with_table(folder, words):
    """Save a module with a table whose words are in a file."""
    module = tf.train.Checkpoint()
    initializer = tf.lookup.TextFileInitializer(
        str(words),
        *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
        *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
    )
    module.table = tf.lookup.StaticHashTable(initializer, -1)
    module.__call__ = tf.function(
        lambda images: images + tf.cast(module.table.lookup(tf.constant("b")), tf.float32),
        input_signature=[tf.TensorSpec([None, 6, 6, 3])],
    )
    tf.saved_model.save(module, str(folder))
    content = (folder / "saved_model.pb").read_bytes()
    return saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]


def test_table_reads_assets_of_the_module_only(tmp_path):
    (tmp_path / "words").write_text("a\nb\n", encoding="utf-8")
    good = save_module_with_table(tmp_path / "module", tmp_path / "words")
    assert find_unsafe_ops(good) == []

    content, parse = good.SerializeToString(), meta_graph_pb2.MetaGraphDef.FromString
    outside, constant, called, old = (parse(content) for _ in range(4))
    outside.asset_file_def[0].filename = "../../etc/passwd"
    # Bound to a string of the attacker's choice, such as a URL.
    for node in constant.object_graph_def.nodes:
        if node.WhichOneof("kind") == "asset":
            node.constant.operation = "Const"
    reads = next(
        each.signature.name
        for each in called.graph_def.library.function
        if any(node.op == "InitializeTableFromTextFileV2" for node in each.node_def)
    )
    call = called.graph_def.library.function.add().node_def.add(name="x", op="PartitionedCall")
    call.attr["f"].func.name = reads
    old.ClearField("object_graph_def")
    for bad in (outside, constant, called, old):
        assert find_unsafe_ops(bad) == ["InitializeTableFromTextFile"]


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
def test_unsafe_op_in_a_function(tmp_path, reach, found):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def call(images):
        reach(str(tmp_path / "written"))
        return tf.reduce_mean(images, [1, 2])

    module.__call__ = call
    tf.saved_model.save(module, str(tmp_path / "module"))
    assert unsafe_ops_of(tmp_path / "module") == found


def test_unsafe_op_in_a_gradient(tmp_path):
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
    assert unsafe_ops_of(tmp_path / "module") == ["SaveV2"]


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
def test_unsafe_op_in_a_tf1_graph(graph, user, used, kind):
    assert find_unsafe_ops(graph) == []
    next(each for each in graph.graph_def.node if each.name == user).input.append(used)
    assert find_unsafe_ops(graph) == [kind]


def test_restore_op_that_saves_is_unsafe(graph):
    graph.graph_def.node[-2].input.append("^save/SaveV2")
    assert find_unsafe_ops(graph) == ["SaveV2"]


def test_function_that_saves_is_unsafe_if_called(graph):
    inner = graph.graph_def.library.function.add()
    inner.signature.name = "inner"
    inner.node_def.add(name="x", op="SaveV2")
    call = graph.graph_def.node.add(name="call", op="PartitionedCall")
    call.attr["f"].func.name = "inner"
    assert find_unsafe_ops(graph) == []
    graph.signature_def["default"].outputs["called"].name = "call:0"
    assert find_unsafe_ops(graph) == ["SaveV2"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["b", "a"], ["b", "a"]),
        (["a", "b", "a", "a"], ["a", "b", "a_1", "a_2"]),
        # An added number never makes a name that another one has.
        (["a", "a", "a_1"], ["a", "a_2", "a_1"]),
        (["a_1", "a", "a", "a_1"], ["a_1", "a", "a_2", "a_1_1"]),
    ],
)
def test_unique_names(names, expected):
    assert unique_names(names) == expected
