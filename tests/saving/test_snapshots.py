import json
import re
import shutil
import time

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib

from library.errors import CheckpointError, UserError
from library.files import seal_folder
from library.models.scores import to_probabilities
from library.saving import snapshots
from library.saving.checkpoints import Checkpoints
from library.saving.snapshots import (
    has_snapshot,
    load_snapshot,
    read_snapshot,
    repair_snapshot,
    write_snapshot,
)
from library.training.ema import ExponentialMovingAverage
from tests.conftest import ROOT
from tests.helpers.cut_short import contents, watched

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1)).astype(np.float32)


def make_network(seed=0, edge=4):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((edge, edge, 1))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)))


@pytest.fixture
def best(tmp_path):
    folder = tmp_path / "run" / "best"
    write_snapshot(folder, make_network(), ("cat", "日本"), {"value": 0.5}, {"a": "b"})
    return folder


def test_read_snapshot_returns_what_was_written(best):
    snapshot = read_snapshot(best)
    assert np.array_equal(snapshot.network(PIXELS), make_network()(PIXELS))
    assert snapshot.classes == ("cat", "日本")
    assert snapshot.metrics == {"value": 0.5}
    assert (best / "a").read_text() == "b"
    assert json.loads((best / "classes.json").read_text()) == ["cat", "日本"]


KINDS = ("Layer", "Functional", "Sequential")


@pytest.fixture
def made_layers(monkeypatch):
    """The names of the classes of layers made from now on."""
    made, make = [], keras.layers.Layer.__init__

    def recorded(layer, *arguments, **options):
        made.append(type(layer).__name__)
        make(layer, *arguments, **options)

    monkeypatch.setattr(keras.layers.Layer, "__init__", recorded)
    return made


def test_keras_makes_layers_while_saving(tmp_path, made_layers):
    """If this fails, Keras no longer needs speed_up_saving: remove that."""
    network = make_network()
    for kind in KINDS:
        global_state.set_global_attribute(f"saving_attr_skiplist_{kind}", None)
    made_layers.clear()
    network.save(tmp_path / "model.keras")
    assert made_layers


def test_speed_up_saving_finds_the_same_attributes():
    names = {kind: f"saving_attr_skiplist_{kind}" for kind in KINDS}
    for name in names.values():
        global_state.set_global_attribute(name, None)
    expected = {name: saving_lib.get_attr_skipset(kind) for kind, name in names.items()}
    for name in names.values():
        global_state.set_global_attribute(name, None)
    snapshots.speed_up_saving()
    assert {name: global_state.get_global_attribute(name) for name in expected} == expected


def test_saving_and_loading_make_no_further_layers(best, made_layers):
    network = make_network()
    made_layers.clear()
    write_snapshot(best, network, ("cat", "日本"), {"value": 0.5}, {})
    assert not made_layers
    read_snapshot(best)
    assert sorted(set(made_layers)) == ["Dense", "Flatten", "Functional", "InputLayer"]


def test_absent_snapshot_is_an_error(tmp_path):
    assert not has_snapshot(tmp_path / "best")
    with pytest.raises(CheckpointError, match=r"python run\.py"):
        read_snapshot(tmp_path / "best")


def test_failed_write_leaves_the_old_one(best, monkeypatch):
    class FullModel:
        def _flatten_layers(self):
            return []

        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    message = rf"{best} .*No space left on device"
    with pytest.raises(UserError, match=message):
        write_snapshot(best, FullModel(), ("dog",), {"value": 0.1}, {})
    assert read_snapshot(best).metrics == {"value": 0.5}
    assert [each.name for each in best.parent.iterdir()] == ["best"]


@pytest.mark.parametrize("name", ["model.keras", "classes.json", "metrics.json"])
def test_damaged_file_is_named(best, name):
    content = bytearray((best / name).read_bytes())
    content[len(content) // 2] ^= 1
    (best / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_snapshot(best)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classes.json", "[cat]", "classes.json .*JSON"),
        ("classes.json", "{}", "classes.json .*list"),
        ("classes.json", '["a"]', "1 class, .* 2 "),
        ("metrics.json", "[]", "metrics.json .*dict"),
        ("data.json", "", "data.json .*JSON"),
    ],
)
def test_wrong_contents_are_one_line(best, name, text, said):
    (best / name).write_text(text)
    seal_folder(best)
    with pytest.raises(CheckpointError, match=said):
        read_snapshot(best)


def test_file_instead_of_folder_is_an_error(best):
    with pytest.raises(CheckpointError, match=r"model\.keras is not a snapshot"):
        read_snapshot(best / "model.keras")


def test_write_killed_at_any_point_leaves_the_old_or_the_new(best, tmp_path):
    with watched(best.parent, tmp_path / "states") as states:
        write_snapshot(best, make_network(1), ("cat", "日本"), {"value": 0.25}, {"a": "b"})
    values = []
    for state in states:
        before = contents(state)
        # A reader beside the training takes what is there and changes nothing.
        assert has_snapshot(state / "best")
        found = read_snapshot(state / "best")
        values.append(found.metrics["value"])
        kernel = make_network(int(values[-1] == 0.25)).weights[0]
        assert np.array_equal(found.network.weights[0], kernel)
        assert found.folder == state / "best"
        assert contents(state) == before
        # The next training repairs it.
        repair_snapshot(state / "best")
        assert [each.name for each in state.iterdir()] == ["best"]
        assert json.loads((state / "best" / "metrics.json").read_text()) == found.metrics
    assert values == sorted(values, reverse=True)
    assert set(values) == {0.5, 0.25}
    assert len(states) > 8


@pytest.mark.parametrize("point", ["find_damage", "load_network"])
@pytest.mark.parametrize("is_after", [False, True])
def test_snapshot_replaced_while_read_is_read_again(best, monkeypatch, point, is_after):
    function = getattr(snapshots, point)

    def replace_first(path):
        monkeypatch.setattr(snapshots, point, function)
        result = function(path) if is_after else None
        write_snapshot(best, make_network(1), ("cat", "日本"), {"value": 0.25}, {})
        return result if is_after else function(path)

    monkeypatch.setattr(snapshots, point, replace_first)
    found = read_snapshot(best)
    assert found.metrics == {"value": 0.25}
    assert np.array_equal(found.network.weights[0], make_network(1).weights[0])


def test_snapshot_read_between_two_renames_is_read_again(best, monkeypatch):
    best.rename(previous := best.with_name("best.previous"))
    load = snapshots.load_network

    def end_replacement(path):
        monkeypatch.setattr(snapshots, "load_network", load)
        write_snapshot(best.with_name("next"), make_network(1), ("a", "b"), {"value": 0.25}, {})
        best.with_name("next").rename(best)
        shutil.rmtree(previous)
        return load(path)

    monkeypatch.setattr(snapshots, "load_network", end_replacement)
    assert read_snapshot(best).metrics == {"value": 0.25}


def test_repair_removes_only_its_own_leftovers(best):
    others = [best.with_name(name) for name in (".best.2.7.ab.partial", ".explained.7.ab.partial")]
    for each in (*others, best.with_name(".best.7.ab.partial")):
        each.mkdir()
    repair_snapshot(best)
    assert sorted(best.parent.iterdir()) == sorted([best, *others])


def test_code_inside_a_model_file_is_refused(best):
    pixels = keras.Input((4, 4, 1))
    network = keras.Model(pixels, keras.layers.Lambda(lambda x: x * 2)(pixels))
    write_snapshot(best, network, ("a",), {}, {})
    with pytest.raises(CheckpointError, match=r"model.keras.*[Ll]ambda"):
        read_snapshot(best)
    assert snapshots.has_snapshot(best)


CLASSES = ("cat", "dog")


def make_dense_network(seed):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(3)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(x)))


@pytest.fixture
def run(tmp_path):
    """A run's folder: its best is network 0, its checkpoint at step 7 network 1."""
    folder = tmp_path / "run"
    write_snapshot(folder / "best", make_dense_network(0), CLASSES, {"epoch": 1, "step": 4}, {})
    save(folder, make_dense_network(1).variables)
    return folder


def save(folder, variables, **more):
    state = {"classes": CLASSES, "epoch": 1, "batch": 3, "step": 7, **more}
    Checkpoints(folder / "checkpoints", 3).save(7, variables, state)


def weights(network):
    return [each.numpy().tolist() for each in network.weights]


def test_network_with_giant_outputs_is_refused(tmp_path, monkeypatch):
    pixels = keras.Input((8, 8, 3))
    large = keras.layers.UpSampling2D(3000, name="large")(pixels)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(large))
    write_snapshot(tmp_path / "best", network, ("a", "b", "c"), {}, {})
    monkeypatch.setattr("library.limits.memory_bytes", lambda: 8e9)
    with pytest.raises(CheckpointError, match="layer large needs"):
        read_snapshot(tmp_path / "best")


def test_load_snapshot_of_a_run_is_its_best(run, tmp_path):
    shutil.copytree(run / "best", tmp_path / "other")
    for source in (None, run / "best", run, tmp_path / "other"):
        stored = load_snapshot(source, run / "best")
        assert weights(stored.network) == weights(make_dense_network(0))
        assert stored.metrics["epoch"] == 1


def test_load_snapshot_during_its_replacement(run):
    (run / "best").rename(run / "best.previous")
    for source in (run / "best", run, run / "checkpoints" / "step_0000000007"):
        assert load_snapshot(source, None).classes == CLASSES
    assert (run / "best.previous").is_dir()


def test_load_snapshot_of_a_checkpoint(run):
    stored = load_snapshot(run / "checkpoints" / "step_0000000007", None)
    assert weights(stored.network) == weights(make_dense_network(1))
    assert stored.metrics == {"epoch": 2, "step": 7}
    assert stored.classes == CLASSES
    assert stored.folder.name == "step_0000000007"


def test_load_snapshot_of_a_checkpoint_takes_the_moving_average(run):
    network, averaged = make_dense_network(1), make_dense_network(2)
    averages = ExponentialMovingAverage(averaged, 0.9)
    shutil.rmtree(run / "checkpoints")
    save(run, [*network.variables, *averages.variables], averages_at=len(network.variables))
    stored = load_snapshot(run / "checkpoints" / "step_0000000007", None)
    assert weights(stored.network) == weights(averaged)


def test_load_snapshot_of_a_moved_checkpoint(run, tmp_path):
    shutil.move(run / "checkpoints", tmp_path / "elsewhere")
    stored = load_snapshot(tmp_path / "elsewhere" / "step_0000000007", run / "best")
    assert weights(stored.network) == weights(make_dense_network(1))


def test_load_snapshot_errors(run, tmp_path):
    checkpoint = run / "checkpoints" / "step_0000000007"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for source, text in (
        (tmp_path / "none", r"none does not exist"),
        (tmp_path / "empty", "empty is not a snapshot"),
        (tmp_path / "file", "file is not a snapshot"),
    ):
        with pytest.raises(CheckpointError, match=text):
            load_snapshot(source, run / "best")
    with pytest.raises(CheckpointError, match="none"):
        load_snapshot(None, tmp_path / "none")

    save(run, make_dense_network(1).variables, classes=("cat", "dodo"))
    with pytest.raises(CheckpointError, match=r"best has other classes than .*step_"):
        load_snapshot(checkpoint, None)
    save(run, make_dense_network(1).variables[:3])
    with pytest.raises(CheckpointError, match="3 variables"):
        load_snapshot(checkpoint, None)
    (checkpoint / "variables.npz").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"step_0000000007 .*variables.npz"):
        load_snapshot(checkpoint, None)


def test_load_snapshot_of_a_foreign_checkpoint(run):
    Checkpoints(run / "checkpoints", 3).save(8, [np.zeros(3)], {"step": 1})
    folder = run / "checkpoints" / "step_0000000008"
    assert json.loads((folder / "state.json").read_text()) == {"step": 1}
    with pytest.raises(CheckpointError, match=r"is not a checkpoint .*'classes'"):
        load_snapshot(folder, None)


V0_1 = ROOT / "tests" / "data" / "v0_1" / "run"
V0_1_PROBABILITIES = [[0.10220088, 0.89779913], [0.06448817, 0.93551183]]


def test_snapshot_of_version_0_1_predicts_the_same():
    """The expected probabilities were computed by version 0.1."""
    for source in (V0_1, V0_1 / "best"):
        snapshot = load_snapshot(source, "none")
        assert snapshot.classes == ("a", "b")
        assert (snapshot.metrics["epoch"], snapshot.metrics["step"]) == (1, 3)
        pixels = np.random.default_rng(0).uniform(0, 255, (2, 4, 4, 1)).astype(np.float32)
        probabilities = to_probabilities(snapshot.network(pixels))
        assert np.allclose(probabilities, V0_1_PROBABILITIES, atol=1e-6)


def test_checkpoint_of_version_0_1_is_loaded():
    snapshot = load_snapshot(V0_1 / "checkpoints" / "step_0000000005", "none")
    assert snapshot.classes == ("a", "b")
    assert snapshot.metrics["step"] == 5


def test_snapshot_is_written_whatever_the_clock_says(best, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)
    write_snapshot(best, make_network(1), ("cat", "dog"), {}, {})
    assert np.array_equal(read_snapshot(best).network(PIXELS), make_network(1)(PIXELS))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("classes.json", "[" * 100_000),
        ("classes.json", '["cat", "cat"]'),
        ("classes.json", '["cat", ["dog"]]'),
        ("metrics.json", '{"a":' * 100_000),
        ("data.json", "[]"),
        ("data.json", '{"images": []}'),
        ("data.json", '{"images": {"max_edge": "\\u0000"}}'),
        ("data.json", '{"fit": ["crop"]}'),
        ("data.json", '{"fit": {"name": "zoom"}}'),
        ("data.json", '{"fit": {"name": "crop", "crop_fraction": 1e400}}'),
    ],
)
def test_hostile_json_is_named(best, name, content):
    (best / name).write_text(content)
    seal_folder(best)
    with pytest.raises(CheckpointError, match=re.escape(name)):
        read_snapshot(best)
