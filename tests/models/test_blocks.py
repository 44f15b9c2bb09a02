import keras
import pytest
import tensorflow as tf

from library.describing.network_summary import describe_network
from library.errors import SettingsError
from library.models.blocks import _Blocks, list_blocks, list_layers, select_layers, train_only
from project.networks.applications import application
from project.networks.hub import hub
from project.networks.residual import residual
from tests.helpers.hub_modules import save_module


def save_keras_module(folder):
    """Save a Keras 3 network as a module: its file holds each variable twice, one of them dead."""
    pixels = x = keras.Input((6, 6, 3))
    for name in ("block1_conv", "block2_conv"):
        x = keras.layers.Conv2D(2, 3, use_bias=False, name=name)(x)
    x = keras.layers.BatchNormalization(name="block2_bn")(x)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    module = tf.train.Checkpoint(network=network)
    module.__call__ = tf.function(
        lambda images, training=False: network(images, training=training),
        input_signature=[tf.TensorSpec([None, 6, 6, 3])],
    )
    module.variables = [each.value for each in network.variables]
    module.trainable_variables = [each.value for each in network.trainable_variables]
    tf.saved_model.save(module, str(folder))


def save_nameless_module(folder):
    module = tf.train.Checkpoint(a=tf.Variable(tf.ones((3, 4))), b=tf.Variable(tf.ones((4, 5))))
    module.__call__ = tf.function(
        lambda images: tf.reduce_mean(images, [1, 2]) @ module.a @ module.b,
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    module.variables = module.trainable_variables = [module.a, module.b]
    tf.saved_model.save(module, str(folder))


class Twins(keras.layers.Layer):
    """A layer that calls two weights by one name."""

    def build(self, shape):
        self.first = self.add_weight(name="w", shape=(shape[-1],))
        self.second = self.add_weight(name="w", shape=(shape[-1],))

    def call(self, x):
        return x * self.first + self.second


def make_attentive():
    """Return a network of layers within which weights have equal names."""
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Reshape((16, 3))(pixels)
    x = keras.layers.MultiHeadAttention(2, 2, name="block1_attention")(x, x)
    # Named, or a second network in one process would have other names.
    x = keras.layers.Bidirectional(keras.layers.GRU(2, name="gru"), name="block2_recurrent")(x)
    return keras.Model(pixels, keras.layers.Dense(2, name="scores")(Twins(name="twins")(x)))


@pytest.fixture(scope="module")
def mobile():
    return application((32, 32, 3), 3, application="MobileNetV2", application_weights=None)


def names(parts):
    return [each.name for each in parts]


def test_parts_are_the_layers_with_weights_from_input_to_output(mobile):
    found = names(list_layers(mobile))
    assert found[:2] == ["base/Conv1", "base/bn_Conv1"]
    assert found[-3:] == ["base/Conv_1", "base/Conv_1_bn", "scores"]
    variables = {id(v) for part in list_layers(mobile) for v in part.variables.values()}
    assert variables == {id(each) for each in mobile.weights}


def test_blocks_go_by_name_and_end_with_the_head(mobile):
    blocks = list_blocks(mobile)
    assert names(blocks[-1]) == ["scores"]
    assert names(blocks[-2]) == ["base/Conv_1", "base/Conv_1_bn"]
    assert [each.block for each in blocks[-3]] == ["block_16"] * 6
    assert len(blocks) == 19


def test_blocks_of_a_network_without_a_base():
    blocks = list_blocks(residual((8, 8, 3), 2, residual_layers=20))
    assert [len(each) for each in blocks] == [2, *[4] * 9, 1]
    assert names(blocks[-1]) == ["scores"]


@pytest.mark.slow
def test_layers_without_block_names_form_blocks_between_merges():
    network = application((75, 75, 3), 3, application="InceptionV3", application_weights=None)
    assert len(list_blocks(network)) == 12


def test_blocks_are_layers_side_by_side_with_the_branches_that_have_no_names():
    # As InceptionResNetV2 is: two branches without names, merged, a convolution, and a shortcut.
    pixels = x = keras.Input((4, 4, 3))
    for name in ("block35_1", "block35_2", "block8_1"):
        branches = [keras.layers.Conv2D(2, 1)(x) for _ in range(2)]
        merged = keras.layers.Concatenate(name=f"{name}_mixed")(branches)
        merged = keras.layers.Conv2D(3, 1, name=f"{name}_conv")(merged)
        x = keras.layers.Add()([x, merged])
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(x))
    blocks = list_blocks(network)
    assert [len(each) for each in blocks] == [3, 3, 3, 1]
    assert [part.name for block in blocks for part in block] == names(list_layers(network))


def test_a_module_has_parts_by_scope(tmp_path):
    save_module(tmp_path)
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    assert names(list_layers(network)) == ["base/block_1", "embedding", "scores"]
    assert list(list_layers(network)[0].variables) == ["kernel", "mean"]
    assert [names(each) for each in list_blocks(network)] == [
        ["base/block_1"],
        ["embedding", "scores"],
    ]


@pytest.mark.parametrize("save", [save_keras_module, save_nameless_module])
def test_each_variable_of_a_module_belongs_to_a_part(save, tmp_path):
    save(tmp_path)
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    in_parts = [id(each) for part in list_layers(network) for each in part.variables.values()]
    assert sorted(in_parts) == sorted(map(id, network.weights))
    numbered = [each for part in list_layers(network) for each in part.numbered]
    assert len(set(numbered)) == len(numbered) == len(network.weights)


def test_the_variables_that_a_module_uses_are_frozen_by_name(tmp_path):
    save_keras_module(tmp_path)
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    blocks = list_blocks(network)
    assert [any(p.is_trained for p in block) for block in blocks] == [True] * 3
    parts = [p for p in list_layers(network) if p.name != "base/block1_conv"]
    train_only(network, parts)
    trained = [each.path.split("/")[-1] for each in network.trainable_variables]
    assert trained[:3] == ["block2_conv_kernel", "block2_bn_gamma", "block2_bn_beta"]
    assert not list_layers(network)[0].is_trained


def test_weights_of_equal_names_within_a_layer_are_told_apart():
    network = make_attentive()
    attention, recurrent, twins, _ = list_layers(network)
    assert list(attention.variables)[:3] == ["query/kernel", "query/bias", "key/kernel"]
    assert attention.numbered[1] == ("block1_attention", "query/1")
    assert len(recurrent.variables) == 6
    assert list(twins.variables) == ["w", "w_1"]
    in_parts = [id(each) for part in list_layers(network) for each in part.variables.values()]
    assert sorted(in_parts) == sorted(map(id, network.weights))
    description = describe_network(network, batch_sizes=())
    assert sum(row.parameters for row in description.rows) == description.parameters


@pytest.mark.parametrize(
    ("scope", "count"),
    [
        ("block_1", 6),
        ("base/block_1", 6),
        ("block_1*", 48),
        ("*_BN", 50),
        ("scores", 1),
        ("base", 104),
    ],
)
def test_scopes_are_beginnings_up_to_the_end_of_a_word(mobile, scope, count):
    assert len(select_layers(list_layers(mobile), [scope], "freeze")) == count


def test_an_unknown_scope_names_the_nearest(mobile):
    with pytest.raises(SettingsError, match="freeze: no layer with weights is called 'score'; did"):
        select_layers(list_layers(mobile), ["score"], "freeze")


def test_training_changes_the_chosen_parts_only(mobile):
    parts = select_layers(list_layers(mobile), ["block_16", "scores"], "trainable_scopes")
    train_only(mobile, parts)
    assert names(p for p in list_layers(mobile) if p.is_trained) == names(parts)
    wanted = {id(v) for part in parts for v in part.layer.trainable_variables}
    assert {id(each) for each in mobile.trainable_variables} == wanted
    # Normalization elsewhere runs in inference mode.
    assert not mobile.get_layer("base").get_layer("block_15_expand_BN").trainable
    train_only(mobile, select_layers(list_layers(mobile), ["scores"], "trainable_scopes"))
    assert len(mobile.trainable_variables) == 2
    assert not mobile.get_layer("base").trainable


def test_what_no_name_tells_is_a_block_between_those_that_names_tell():
    naming = _Blocks("base/")
    layers = ("stem", "stem_bn", "blocks_0_dw", "blocks_0_bn", "blocks_1_dw", "top", "top_bn")
    assert [naming.of(each) for each in layers] == [
        *("base/0", "base/0", "blocks_0", "blocks_0", "blocks_1", "base/3", "base/3")
    ]


def test_of_names_with_two_numbers_the_second_counts_where_the_first_is_a_kind():
    naming = _Blocks("base/")
    layers = ("block35_1_conv", "block35_10_conv", "conv2_block1_1_conv", "conv2_block1_2_bn")
    assert [naming.of(each) for each in layers] == [
        *("block35_1", "block35_10", "conv2_block1", "conv2_block1")
    ]
    assert naming.of("InceptionResnetV2/Repeat/block35_2/Branch_0/Conv2d_1x1").endswith("block35_2")


def test_a_frozen_module_runs_in_inference_mode(tmp_path):
    save_module(tmp_path)
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    train_only(network, list_layers(network)[1:])
    assert not network.get_layer("base").trainable
    assert len(network.trainable_variables) == 4
    train_only(network, list_layers(network))
    assert network.trainable_variables[0].name == "block_1_kernel"
