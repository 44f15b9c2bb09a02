import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import CheckpointError, SettingsError
from library.models.blocks import list_layers
from library.models.weights import load_weights, read_weights
from library.saving.snapshots import write_snapshot
from tests.helpers.hub_modules import save_keras_module, save_module, save_nameless_module
from tests.helpers.small_networks import Twins, build, make_attentive


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAVERS)
def test_load_weights_from_every_kind_of_file(kind, tmp_path):
    (tmp_path / "x").mkdir()
    source, network = make_network(seed=1), make_network(seed=2)
    loading = load_weights(network, SAVERS[kind](source, tmp_path / "x"))
    assert not any(loading.reasons.values())
    for mine, theirs in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)
    assert next(loading.lines()).startswith("loaded 12 of 12 variables from ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["keras", "h5", "checkpoint", "TF1 checkpoint"])
def test_load_variables_of_equal_names_within_a_layer(kind, tmp_path):
    source, network = make_attentive(), make_attentive()
    for number, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, number))
    with keras.saving.custom_object_scope({"Twins": Twins}):
        loading = load_weights(network, SAVERS[kind](source, tmp_path))
    assert not any(loading.reasons.values())
    assert len(loading.reasons) == len(network.weights)
    for mine, theirs in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_load_into_a_base_of_another_name(tmp_path):
    source, inner = make_attentive(), make_attentive()
    for number, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, number))
    inner.name = "base"
    pixels = keras.Input((4, 4, 3))
    network = keras.Model(pixels, keras.layers.Dense(3, name="other")(inner(pixels)))
    loading = load_weights(network, SAVERS["h5"](source, tmp_path))
    assert {layer for (layer, _), reason in loading.reasons.items() if reason} == {"other"}
    for mine, theirs in zip(inner.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_keras_module, save_nameless_module])
@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_load_all_variables_of_a_hub_module(kind, save, tmp_path):
    save(tmp_path / "module")
    source, network = (
        build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path / "module")) for _ in range(2)
    )
    for number, variable in enumerate(source.weights):
        variable.assign(np.full(variable.shape, number))
    loading = load_weights(network, SAVERS[kind](source, tmp_path))
    assert not any(loading.reasons.values())
    for mine, theirs in zip(network.weights, source.weights, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.slow
def test_lines_say_what_was_skipped_and_why(tmp_path):
    path = SAVERS["h5"](make_network(class_count=5, seed=1), tmp_path)
    network = make_network(class_count=3)
    before = network.get_layer("block1_convolution").kernel.numpy()
    loading = load_weights(network, path, ["block1_convolution"])
    assert list(loading.lines()) == [
        f"loaded 9 of 12 variables from {path}",
        "  loaded    block1_normalization: 4 variables",
        "  loaded    block2_convolution: 1 variable",
        "  loaded    block2_normalization: 4 variables",
        "  skipped   block1_convolution: excluded by checkpoint_exclude_scopes",
        "  skipped   scores: shape (4, 5) in the file, (4, 3) here",
        "  skipped   scores: shape (5,) in the file, (3,) here",
        "  not used  block1_convolution",
    ]
    assert np.array_equal(before, network.get_layer("block1_convolution").kernel)


@pytest.mark.slow
def test_load_a_base_into_the_whole_network(tmp_path):
    options = {"application": "MobileNetV3Small", "application_weights": None}
    source = build("application", (32, 32, 3), 2, **options)
    source.get_layer("base").save_weights(tmp_path / "base.weights.h5")
    network = build("application", (32, 32, 3), 2, **options)
    loading = load_weights(network, tmp_path / "base.weights.h5")
    assert [layer for (layer, _), reason in loading.reasons.items() if reason] == ["scores"] * 2
    assert "  skipped   scores: not in the file" in list(loading.lines())
    pixels = np.full((1, 32, 32, 3), 7, np.float32)
    assert np.array_equal(network.get_layer("base")(pixels), source.get_layer("base")(pixels))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5", "keras"])
def test_load_a_network_with_a_hub_module(kind, tmp_path):
    save_module(tmp_path / "module")
    options = {"hub_handle": str(tmp_path / "module")}
    source = build("hub", (6, 6, 3), 2, **options)
    source.get_layer("base").variables[0].assign(np.full((3, 5), 0.25))
    network = build("hub", (6, 6, 3), 2, **options)
    loading = load_weights(network, SAVERS[kind](source, tmp_path))
    assert not any(loading.reasons.values())
    assert np.array_equal(network.get_layer("base").variables[0], np.full((3, 5), 0.25))


@pytest.mark.slow
def test_nothing_that_fits_is_an_error(tmp_path):
    source = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="other")])
    with pytest.raises(CheckpointError, match=r"fits .*: .*other/0, other/1, "):
        load_weights(make_network(), SAVERS["h5"](source, tmp_path))


@pytest.mark.slow
def test_unknown_exclude_scope_is_refused(tmp_path):
    path = SAVERS["h5"](make_network(), tmp_path)
    with pytest.raises(SettingsError, match="checkpoint_exclude_scopes"):
        load_weights(make_network(), path, ["score"])


@pytest.mark.parametrize("kind", SAVERS)
def test_read_weights_names_layers(kind, tmp_path):
    names = read_weights(
        SAVERS[kind](make_network(), tmp_path / kind if kind == "snapshot" else tmp_path)
    )
    wanted = {"h5": "scores/0", "TF1 checkpoint": "tower/scores/kernel"}.get(kind, "scores/kernel")
    assert names[wanted].shape == (4, 3)
    assert len(names) == 12


def test_read_weights_of_an_absent_path(tmp_path):
    with pytest.raises(CheckpointError, match="x does not exist"):
        read_weights(tmp_path / "x")


def test_read_weights_of_another_folder(tmp_path):
    with pytest.raises(CheckpointError, match=f"{tmp_path} is not a snapshot's folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("run", "run/best"),
        ("run/checkpoints", "run/best"),
        ("ck.index", "ck"),
        ("ck.data-00000-of-00001", "ck"),
    ],
)
def test_read_weights_names_a_path_nearby(given, meant, tmp_path):
    for name in ("run/best/model.keras", "run/checkpoints/1", "ck.index", "ck.data-00000-of-00001"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"did you mean {tmp_path}/{meant}\?$"):
        read_weights(tmp_path / given)


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5", "x"])
def test_read_weights_of_a_damaged_file(name, tmp_path):
    (tmp_path / name).write_bytes(b"nothing")
    (tmp_path / "x.index").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"checkpoint_path: .* cannot be read: ") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_read_weights_of_another_h5_file(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["numbers"] = [1, 2]
    with pytest.raises(CheckpointError, match=r"\.weights\.h5"):
        read_weights(tmp_path / "x.h5")


def test_read_weights_of_a_damaged_snapshot(tmp_path):
    SAVERS["snapshot"](make_network(), tmp_path / "best")
    (tmp_path / "best" / "classes.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(tmp_path / "best")


def test_read_weights_of_a_snapshot_during_its_replacement(tmp_path):
    SAVERS["snapshot"](make_network(), tmp_path / "best").rename(tmp_path / "best.previous")
    assert read_weights(tmp_path / "best")
