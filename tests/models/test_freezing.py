import keras
import numpy as np
import pytest
import tensorflow as tf

from library.describing.network_summary import summarize_network
from library.errors import SettingsError
from library.models.blocks import (
    _BlockNames,
    list_blocks,
    list_layers,
    select_layers,
    train_only,
)
from library.models.freezing import (
    Unfreezing,
    freeze_layers,
    infer_while_frozen,
    layer_rate_factors,
    with_layer_rates,
)
from tests.helpers.hub_modules import (
    save_keras_module,
    save_module,
    save_nameless_module,
    save_tf1_module,
)
from tests.helpers.small_networks import build, make_attentive


@pytest.fixture(scope="module")
def mobile():
    return build("application", (32, 32, 3), 3, application="MobileNetV2", application_weights=None)


def names(layers):
    return [each.name for each in layers]


def test_list_layers_of_an_application(mobile):
    found = names(list_layers(mobile))
    assert found[:2] == ["base/Conv1", "base/bn_Conv1"]
    assert found[-3:] == ["base/Conv_1", "base/Conv_1_bn", "scores"]
    variables = {id(v) for layer in list_layers(mobile) for v in layer.variables.values()}
    assert variables == {id(each) for each in mobile.weights}


def test_list_blocks_of_an_application(mobile):
    blocks = list_blocks(mobile)
    assert names(blocks[-1]) == ["scores"]
    assert names(blocks[-2]) == ["base/Conv_1", "base/Conv_1_bn"]
    assert [each.block for each in blocks[-3]] == ["block_16"] * 6
    assert len(blocks) == 19


def test_list_blocks_without_a_base():
    blocks = list_blocks(build("residual", (8, 8, 3), 2, residual_layers=20))
    assert [len(each) for each in blocks] == [2, *[4] * 9, 1]
    assert names(blocks[-1]) == ["scores"]


@pytest.mark.slow
def test_unnamed_blocks_lie_between_merges():
    network = build(
        "application", (75, 75, 3), 3, application="InceptionV3", application_weights=None
    )
    assert len(list_blocks(network)) == 12


def test_unnamed_branches_belong_to_the_block_that_merges_them():
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
    assert [layer.name for block in blocks for layer in block] == names(list_layers(network))


def test_list_layers_of_a_hub_module(tmp_path):
    save_module(tmp_path)
    network = build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    assert names(list_layers(network)) == ["base/block_1", "embedding", "scores"]
    assert list(list_layers(network)[0].variables) == ["kernel", "mean"]
    assert [names(each) for each in list_blocks(network)] == [
        ["base/block_1"],
        ["embedding", "scores"],
    ]


@pytest.mark.parametrize("save", [save_keras_module, save_nameless_module])
def test_every_variable_of_a_hub_module_is_listed_once(save, tmp_path):
    save(tmp_path)
    network = build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    listed = [id(each) for layer in list_layers(network) for each in layer.variables.values()]
    assert sorted(listed) == sorted(map(id, network.weights))
    numbered = [each for layer in list_layers(network) for each in layer.numbered]
    assert len(set(numbered)) == len(numbered) == len(network.weights)


def test_train_only_freezes_the_variables_that_a_hub_module_uses(tmp_path):
    save_keras_module(tmp_path)
    network = build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    blocks = list_blocks(network)
    assert [any(e.is_trainable for e in block) for block in blocks] == [True] * 3
    layers = [e for e in list_layers(network) if e.name != "base/block1_conv"]
    train_only(network, layers)
    trained = [each.path.split("/")[-1] for each in network.trainable_variables]
    assert trained[:3] == ["block2_conv_kernel", "block2_bn_gamma", "block2_bn_beta"]
    assert not list_layers(network)[0].is_trainable


def test_variables_of_equal_names_within_a_layer():
    network = make_attentive()
    attention, recurrent, twins, _ = list_layers(network)
    assert list(attention.variables)[:3] == ["query/kernel", "query/bias", "key/kernel"]
    assert attention.numbered[1] == ("block1_attention", "query/1")
    assert len(recurrent.variables) == 6
    assert list(twins.variables) == ["w", "w_1"]
    listed = [id(each) for layer in list_layers(network) for each in layer.variables.values()]
    assert sorted(listed) == sorted(map(id, network.weights))
    summary = summarize_network(network, batch_sizes=())
    assert sum(row.parameters for row in summary.rows) == summary.parameters


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
def test_select_layers(mobile, scope, count):
    assert len(select_layers(list_layers(mobile), [scope], "freeze")) == count


def test_select_layers_names_the_nearest_scope(mobile):
    with pytest.raises(SettingsError, match=r"freeze: .*'score'.*'scores'"):
        select_layers(list_layers(mobile), ["score"], "freeze")


def test_train_only(mobile):
    layers = select_layers(list_layers(mobile), ["block_16", "scores"], "trainable_scopes")
    train_only(mobile, layers)
    assert names(e for e in list_layers(mobile) if e.is_trainable) == names(layers)
    wanted = {id(v) for layer in layers for v in layer.layer.trainable_variables}
    assert {id(each) for each in mobile.trainable_variables} == wanted
    # Normalization elsewhere runs in inference mode.
    assert not mobile.get_layer("base").get_layer("block_15_expand_BN").trainable
    train_only(mobile, select_layers(list_layers(mobile), ["scores"], "trainable_scopes"))
    assert len(mobile.trainable_variables) == 2
    assert not mobile.get_layer("base").trainable


def test_block_names_of_layers_without_one():
    naming = _BlockNames("base/")
    layers = ("stem", "stem_bn", "blocks_0_dw", "blocks_0_bn", "blocks_1_dw", "top", "top_bn")
    assert [naming.of(each) for each in layers] == [
        *("base/0", "base/0", "blocks_0", "blocks_0", "blocks_1", "base/3", "base/3")
    ]


def test_block_names_with_two_numbers():
    naming = _BlockNames("base/")
    layers = ("block35_1_conv", "block35_10_conv", "conv2_block1_1_conv", "conv2_block1_2_bn")
    assert [naming.of(each) for each in layers] == [
        *("block35_1", "block35_10", "conv2_block1", "conv2_block1")
    ]
    assert naming.of("InceptionResnetV2/Repeat/block35_2/Branch_0/Conv2d_1x1").endswith("block35_2")


def test_train_only_freezes_a_hub_module(tmp_path):
    save_module(tmp_path)
    network = build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path), fine_tuning=True)
    train_only(network, list_layers(network)[1:])
    assert not network.get_layer("base").trainable
    assert len(network.trainable_variables) == 4
    train_only(network, list_layers(network))
    assert network.trainable_variables[0].name == "block_1_kernel"


def make_network():
    """Three blocks and a head."""
    pixels = x = keras.Input((16, 16, 3))
    for name in ("block1", "block2", "block3"):
        x = keras.layers.Conv2D(4, 3, name=f"{name}_convolution")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_normalization")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(2, name="scores")(x))


def trained(network):
    return sorted({each.path.split("/")[0] for each in network.trainable_variables})


@pytest.mark.slow
def test_freeze_layers():
    network = make_network()
    freeze_layers(network, ["block2", "scores"])
    assert trained(network) == ["block2_convolution", "block2_normalization", "scores"]
    freeze_layers(network, freeze=["*normalization"])
    assert trained(network) == ["block2_convolution", "scores"]


@pytest.mark.slow
def test_freeze_layers_without_scopes():
    network = make_network()
    freeze_layers(network)
    assert len(trained(network)) == 7


@pytest.mark.slow
def test_freezing_everything_is_refused():
    with pytest.raises(SettingsError, match="freeze and trainable_scopes"):
        freeze_layers(make_network(), freeze=["*"])


@pytest.mark.slow
def test_scope_that_cannot_be_trained_is_refused(tmp_path):
    save_tf1_module(tmp_path)
    network = build("hub", (6, 6, 3), 2, hub_handle=tmp_path)
    with pytest.raises(SettingsError, match="trainable_scopes: 'base'"):
        freeze_layers(network, ["scores", "base"])
    # A scope that is frozen as well is no error.
    freeze_layers(make_network(), ["block1", "scores"], ["block1"])


def make_base_with_dropout():
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(64, 4, name="block1_convolution")(pixels)
    x = keras.layers.Flatten()(keras.layers.Dropout(0.5)(x))
    return keras.Model(pixels, x, name="base")


def differ(network, images):
    """Whether the network gives other scores in training mode each time."""
    return not np.array_equal(*(network(images, training=True) for _ in range(2)))


@pytest.mark.slow
def test_keras_drops_out_in_frozen_models():
    """If this fails, Keras does by itself what infer_while_frozen does: remove that."""
    base = make_base_with_dropout()
    base.trainable = False
    assert differ(base, np.ones((1, 4, 4, 3), np.float32))


@pytest.mark.slow
def test_infer_while_frozen(tmp_path):
    base = make_base_with_dropout()
    infer_while_frozen(base)
    pixels = keras.Input((4, 4, 3))
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(base(pixels)))
    images = np.ones((1, 4, 4, 3), np.float32)

    def drops_out():
        return differ(network, images)

    assert drops_out()
    assert not np.array_equal(network(images, training=True), network(images))
    stages = Unfreezing(network, ["1=all"])
    stages.apply(0)
    assert not drops_out()
    stages.apply(1)
    assert drops_out()
    freeze_layers(network, freeze=["base"])
    assert not drops_out()
    # A file of it is that of any network.
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert np.array_equal(again(images), network(images))


@pytest.mark.slow
def test_unfreezing_from_the_top():
    network = make_network()
    stages = Unfreezing(network, ["4=all", "2=1"])
    heads = [stages.apply(epoch) for epoch in range(6)]
    assert heads[0] == "epoch 1: training the head only (1 layer)"
    assert heads[1] is None
    assert heads[2] == "epoch 3: training the head and the top 1 of 3 blocks (3 layers)"
    assert heads[4] == "epoch 5: training the head and the top 3 of 3 blocks (7 layers)"
    assert len(trained(network)) == 7
    # A run that is resumed in the middle starts with the stage of its epoch.
    again = make_network()
    assert "top 1 of 3" in Unfreezing(again, ["2=1", "4=all"]).apply(3)
    assert trained(again) == ["block3_convolution", "block3_normalization", "scores"]


@pytest.mark.slow
def test_two_stages_at_one_epoch_are_refused():
    with pytest.raises(SettingsError, match=r"unfreezing: .*epoch 3"):
        Unfreezing(make_network(), ["0=1", "3=all", "3=2"])


@pytest.mark.slow
def test_unfreezing_leaves_frozen_layers_alone():
    network = make_network()
    freeze_layers(network, freeze=["*normalization"])
    Unfreezing(network, ["0=all"]).apply(0)
    assert all("normalization" not in each for each in trained(network))
    freeze_layers(network, ["scores"])
    with pytest.raises(SettingsError, match="--fine_tuning"):
        Unfreezing(network, ["0=all"])


@pytest.mark.slow
@pytest.mark.parametrize("word", ["", "3", "x=1", "3=some", "-1=2", "3=-2", "1=2=3"])
def test_malformed_stage(word):
    with pytest.raises(SettingsError, match=r"unfreezing: .*3=2"):
        Unfreezing(make_network(), [word])


@pytest.mark.slow
def test_one_optimizer_serves_all_stages():
    network = make_network()
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(network.trainable_variables)
    stages = Unfreezing(network, ["1=all"])
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
    for epoch, kernel_changes in ((0, False), (1, True)):
        stages.apply(epoch)
        kernel = network.get_layer("block1_convolution").kernel.numpy()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((network(pixels, training=True) - 1) ** 2)
        weights = network.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        now = network.get_layer("block1_convolution").kernel.numpy()
        assert kernel_changes != np.array_equal(kernel, now)


def apply_compiled(optimizer, gradients, weights):
    @tf.function
    def apply():
        optimizer.apply(gradients, weights)

    apply()


@pytest.mark.slow
@pytest.mark.parametrize("make", [keras.optimizers.SGD, keras.optimizers.Adam])
@pytest.mark.parametrize("wrap", [lambda o: o, keras.optimizers.LossScaleOptimizer])
def test_layer_rates_scale_the_update_of_each_variable(make, wrap):
    moved = []
    for decay in (1.0, 0.5):
        keras.utils.set_random_seed(0)
        network = make_network()
        optimizer = with_layer_rates(make(0.0), 0.01, layer_rate_factors(network, decay))
        assert type(optimizer).__name__ == make.__name__
        optimizer = wrap(optimizer)
        weights = network.trainable_variables
        optimizer.build(weights)
        before = [each.numpy() for each in weights]
        gradients = [tf.ones_like(each) * optimizer.scale_loss(1.0) for each in weights]
        apply_compiled(optimizer, gradients, weights)
        moved.append([each.numpy() - old for each, old in zip(weights, before, strict=True)])
    depth = {
        id(v): n
        for n, block in enumerate(reversed(list_blocks(network)))
        for part in block
        for v in part.variables.values()
    }
    assert sorted(set(depth.values())) == [0, 1, 2, 3]
    for variable, whole, scaled in zip(weights, *moved, strict=True):
        assert np.allclose(scaled, whole * 0.5 ** depth[id(variable)], rtol=1e-3, atol=1e-7)
