import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.models.blocks import list_blocks
from library.models.freezing import (
    Unfreezing,
    freeze_parts,
    infer_while_frozen,
    layer_rate_factors,
    with_layer_rates,
)
from project.networks.hub import hub
from tests.helpers.hub_modules import save_tf1_module

pytestmark = pytest.mark.slow


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


def test_scopes_and_freeze():
    network = make_network()
    freeze_parts(network, ["block2", "scores"])
    assert trained(network) == ["block2_convolution", "block2_normalization", "scores"]
    freeze_parts(network, freeze=["*normalization"])
    assert trained(network) == ["block2_convolution", "scores"]


def test_without_scopes_nothing_changes():
    network = make_network()
    freeze_parts(network)
    assert len(trained(network)) == 7


def test_freezing_everything_is_refused():
    with pytest.raises(SettingsError, match="nothing is left to train"):
        freeze_parts(make_network(), freeze=["*"])


def test_a_scope_that_cannot_be_trained_is_refused(tmp_path):
    save_tf1_module(tmp_path)
    network = hub((6, 6, 3), 2, hub_handle=tmp_path)
    text = "trainable_scopes: nothing in 'base' can be trained, as in all modules in the format of"
    with pytest.raises(SettingsError, match=text):
        freeze_parts(network, ["scores", "base"])
    # But to freeze what was named is no mistake.
    freeze_parts(make_network(), ["block1", "scores"], ["block1"])


def test_a_base_drops_out_features_only_where_some_of_it_is_trained(tmp_path):
    pixels = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(64, 4, name="block1_convolution")(pixels)
    x = keras.layers.Flatten()(keras.layers.Dropout(0.5)(x))
    base = keras.Model(pixels, x, name="base")
    infer_while_frozen(base)
    pixels = keras.Input((4, 4, 3))
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(base(pixels)))
    images = np.ones((1, 4, 4, 3), np.float32)

    def drops_out():
        scores = [network(images, training=True).numpy() for _ in range(2)]
        return not np.array_equal(*scores)

    assert drops_out()
    assert not np.array_equal(network(images, training=True), network(images))
    stages = Unfreezing(network, ["1=all"])
    stages.apply(0)
    assert not drops_out()
    stages.apply(1)
    assert drops_out()
    freeze_parts(network, freeze=["base"])
    assert not drops_out()
    # A file of it is that of any network.
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", safe_mode=True)
    assert np.array_equal(again(images), network(images))


def test_stages_unfreeze_from_the_top():
    network = make_network()
    stages = Unfreezing(network, ["4=all", "2=1"])
    heads = [stages.apply(epoch) for epoch in range(6)]
    assert heads[0] == "epoch 1: training the head alone, 1 layer"
    assert heads[1] is None
    assert heads[2] == "epoch 3: training the head and the top 1 of 3 blocks, 3 layers"
    assert heads[4] == "epoch 5: training the head and the top 3 of 3 blocks, 7 layers"
    assert len(trained(network)) == 7
    # A run that goes on in the middle begins with the stage of its epoch.
    again = make_network()
    assert "top 1 of 3" in Unfreezing(again, ["2=1", "4=all"]).apply(3)
    assert trained(again) == ["block3_convolution", "block3_normalization", "scores"]


def test_two_stages_from_one_epoch_on_are_refused():
    with pytest.raises(SettingsError, match="unfreezing: two stages begin with epoch 3, leave one"):
        Unfreezing(make_network(), ["0=1", "3=all", "3=2"])


def test_stages_never_unfreeze_what_is_frozen_for_good():
    network = make_network()
    freeze_parts(network, freeze=["*normalization"])
    Unfreezing(network, ["0=all"]).apply(0)
    assert all("normalization" not in each for each in trained(network))
    freeze_parts(network, ["scores"])
    with pytest.raises(SettingsError, match="the base is frozen for good; add --fine_tuning"):
        Unfreezing(network, ["0=all"])


@pytest.mark.parametrize("word", ["", "3", "x=1", "3=some", "-1=2", "3=-2", "1=2=3"])
def test_a_wrong_stage_says_what_is_right(word):
    with pytest.raises(SettingsError, match="must be an epoch and how many of the top blocks"):
        Unfreezing(make_network(), [word])


def test_an_optimizer_of_all_stages_serves_each():
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


@pytest.mark.parametrize("make", [keras.optimizers.SGD, keras.optimizers.Adam])
@pytest.mark.parametrize("wrap", [lambda o: o, keras.optimizers.LossScaleOptimizer])
def test_each_block_learns_at_its_own_rate(make, wrap):
    """The oracle: the step of each variable is the whole step times its factor."""
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
