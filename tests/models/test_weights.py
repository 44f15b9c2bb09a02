import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import CheckpointError, SettingsError
from library.models.blocks import list_layers
from library.models.weights import load_weights
from library.saving.snapshots import write_snapshot
from project.networks.applications import application
from project.networks.hub import hub
from tests.helpers.hub_modules import save_module
from tests.models.test_blocks import Twins, make_attentive, save_keras_module, save_nameless_module

pytestmark = pytest.mark.slow


def make_network(class_count=3, seed=0):
    pixels = x = keras.Input((8, 8, 3))
    for name in ("block1", "block2"):
        x = keras.layers.Conv2D(4, 3, use_bias=False, name=f"{name}_convolution")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_normalization")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(pixels, keras.layers.Dense(class_count, name="scores")(x))
    for variable in network.weights:
        variable.assign(np.random.default_rng(seed).uniform(size=variable.shape))
    return network


def save_tf1_checkpoint(network, path):
    """Save as TensorFlow 1 does: by name, with an optimizer's slots beside the weights."""
    values = {
        f"tower/{part.name}/{name}": variable.numpy()
        for part in list_layers(network)
        for name, variable in part.variables.items()
    }
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in values.items():
            tf.compat.v1.get_variable(name, initializer=value)
            tf.compat.v1.get_variable(f"{name}/Adam", initializer=value * 0)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(path))


SAVERS = {
    "snapshot": lambda n, path: write_snapshot(path, n, ["a", "b", "c"], {}, {}) or path,
    "keras": lambda n, path: n.save(path / "n.keras") or path / "n.keras",
    "h5": lambda n, path: n.save_weights(path / "n.weights.h5") or path / "n.weights.h5",
    "checkpoint": lambda n, path: tf.train.Checkpoint(model=n).write(str(path / "n")),
    "checkpoint folder": lambda n, path: tf.train.Checkpoint(n=n).save(str(path / "n")) and path,
    "TF1 checkpoint": lambda n, path: save_tf1_checkpoint(n, path / "n") or path / "n",
}


@pytest.mark.parametrize("kind", SAVERS)
def test_every_kind_is_loaded_exactly(kind, tmp_path):
    (tmp_path / "x").mkdir()
    source, network = make_network(seed=1), make_network(seed=2)
    loading = load_weights(network, SAVERS[kind](source, tmp_path / "x"))
    assert not any(row.why_not for row in loading.rows)
    for mine, theirs in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)
    assert next(loading.lines()).startswith("loaded 12 of 12 variables from ")


@pytest.mark.parametrize("kind", ["keras", "h5", "checkpoint", "TF1 checkpoint"])
def test_weights_of_equal_names_within_a_layer_are_loaded_each(kind, tmp_path):
    source, network = make_attentive(), make_attentive()
    for number, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, number))
    with keras.saving.custom_object_scope({"Twins": Twins}):
        loading = load_weights(network, SAVERS[kind](source, tmp_path))
    assert not any(row.why_not for row in loading.rows)
    assert len(loading.rows) == len(network.weights)
    for mine, theirs in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)


def test_layers_within_layers_are_found_where_the_base_has_another_name(tmp_path):
    source, inner = make_attentive(), make_attentive()
    for number, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, number))
    inner.name = "base"
    pixels = keras.Input((4, 4, 3))
    network = keras.Model(pixels, keras.layers.Dense(3, name="other")(inner(pixels)))
    loading = load_weights(network, SAVERS["h5"](source, tmp_path))
    assert {row.part for row in loading.rows if row.why_not} == {"other"}
    for mine, theirs in zip(inner.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("save", [save_keras_module, save_nameless_module])
@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_all_variables_of_a_module_are_loaded(kind, save, tmp_path):
    save(tmp_path / "module")
    source, network = (hub((6, 6, 3), 2, hub_handle=str(tmp_path / "module")) for _ in range(2))
    for number, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, number))
    loading = load_weights(network, SAVERS[kind](source, tmp_path))
    assert not any(row.why_not for row in loading.rows)
    for mine, theirs in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)


def test_the_table_says_what_was_left_out_and_why(tmp_path):
    path = SAVERS["h5"](make_network(class_count=5, seed=1), tmp_path)
    network = make_network(class_count=3)
    before = network.get_layer("block1_convolution").kernel.numpy()
    loading = load_weights(network, path, ["block1_convolution"])
    assert list(loading.lines()) == [
        f"loaded 9 of 12 variables from {path}",
        "  loaded    block1_normalization: 4 variables",
        "  loaded    block2_convolution: 1 variable",
        "  loaded    block2_normalization: 4 variables",
        "  left out  block1_convolution: excluded by checkpoint_exclude_scopes",
        "  left out  scores: shape (4, 5) in the file, (4, 3) here",
        "  left out  scores: shape (5,) in the file, (3,) here",
        "  not used  block1_convolution",
    ]
    assert np.array_equal(before, network.get_layer("block1_convolution").kernel)


@pytest.mark.slow
def test_a_base_alone_fits_into_the_whole_network(tmp_path):
    options = {"application": "MobileNetV3Small", "application_weights": None}
    source = application((32, 32, 3), 2, **options)
    source.get_layer("base").save_weights(tmp_path / "base.weights.h5")
    network = application((32, 32, 3), 2, **options)
    loading = load_weights(network, tmp_path / "base.weights.h5")
    assert [row.part for row in loading.rows if row.why_not] == ["scores", "scores"]
    assert "  left out  scores: not in the file" in list(loading.lines())
    pixels = np.full((1, 32, 32, 3), 7, np.float32)
    assert np.array_equal(network.get_layer("base")(pixels), source.get_layer("base")(pixels))


@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_a_module_is_loaded_too(kind, tmp_path):
    save_module(tmp_path / "module")
    options = {"hub_handle": str(tmp_path / "module")}
    source = hub((6, 6, 3), 2, **options)
    source.get_layer("base").variables[0].assign(np.full((3, 5), 0.25))
    network = hub((6, 6, 3), 2, **options)
    loading = load_weights(network, SAVERS[kind](source, tmp_path))
    assert not any(row.why_not for row in loading.rows)
    assert np.array_equal(network.get_layer("base").variables[0], np.full((3, 5), 0.25))


def test_nothing_that_fits_is_an_error(tmp_path):
    source = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")])
    with pytest.raises(
        CheckpointError, match="fits this network: it holds other/0, other/1, the n"
    ):
        load_weights(make_network(), SAVERS["h5"](source, tmp_path))


def test_an_unknown_scope_to_exclude_is_refused(tmp_path):
    path = SAVERS["h5"](make_network(), tmp_path)
    with pytest.raises(SettingsError, match=r"checkpoint_exclude_scopes: no layer .* did you mean"):
        load_weights(make_network(), path, ["score"])
