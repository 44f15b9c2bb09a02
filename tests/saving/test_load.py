import json
import shutil

import keras
import numpy as np
import pytest

from library.errors import CheckpointError
from library.saving.checkpoints import Checkpoints
from library.saving.load import load_snapshot
from library.saving.snapshots import write_snapshot
from library.training.ema import ExponentialMovingAverage

CLASSES = ("cat", "dog")


def make_network(seed):
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(3)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(x)))


@pytest.fixture
def run(tmp_path):
    """A run's folder: its best is network 0, its checkpoint at step 7 network 1."""
    folder = tmp_path / "run"
    write_snapshot(folder / "best", make_network(0), CLASSES, {"epoch": 1, "step": 4}, {})
    save(folder, make_network(1).variables)
    return folder


def save(folder, variables, **more):
    state = {"classes": CLASSES, "epoch": 1, "batch": 3, "step": 7, **more}
    Checkpoints(folder / "checkpoints", 3).save(7, variables, state)


def weights(network):
    return [each.numpy().tolist() for each in network.weights]


def test_a_snapshot_a_run_and_nothing_mean_the_best(run, tmp_path):
    shutil.copytree(run / "best", tmp_path / "other")
    for where in (None, run / "best", run, tmp_path / "other"):
        stored = load_snapshot(where, run / "best")
        assert weights(stored.network) == weights(make_network(0))
        assert stored.metrics["epoch"] == 1


def test_so_they_do_where_its_replacement_was_cut_short(run):
    (run / "best").rename(run / "best.previous")
    for where in (run / "best", run, run / "checkpoints" / "step_0000000007"):
        assert load_snapshot(where, None).classes == CLASSES
    assert (run / "best.previous").is_dir()


def test_a_checkpoint_has_the_weights_of_its_step(run):
    stored = load_snapshot(run / "checkpoints" / "step_0000000007", None)
    assert weights(stored.network) == weights(make_network(1))
    assert stored.metrics == {"epoch": 2, "step": 7}
    assert stored.classes == CLASSES
    assert stored.folder.name == "step_0000000007"


def test_where_training_keeps_averages_these_are_what_a_checkpoint_means(run):
    network, averaged = make_network(1), make_network(2)
    averages = ExponentialMovingAverage(averaged, 0.9)
    shutil.rmtree(run / "checkpoints")
    save(run, [*network.variables, *averages.variables], averages_at=len(network.variables))
    stored = load_snapshot(run / "checkpoints" / "step_0000000007", None)
    assert weights(stored.network) == weights(averaged)


def test_a_checkpoint_elsewhere_is_of_the_network_of_the_best(run, tmp_path):
    shutil.move(run / "checkpoints", tmp_path / "elsewhere")
    stored = load_snapshot(tmp_path / "elsewhere" / "step_0000000007", run / "best")
    assert weights(stored.network) == weights(make_network(1))


def test_what_cannot_be_used_is_one_line(run, tmp_path):
    checkpoint = run / "checkpoints" / "step_0000000007"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for where, text in (
        (tmp_path / "none", r"there is no .*none: a snapshot, a run or a checkpoint is a folder"),
        (tmp_path / "empty", "empty is no snapshot of this project"),
        (tmp_path / "file", "file is a file: a snapshot is the folder around its model.keras"),
    ):
        with pytest.raises(CheckpointError, match=text):
            load_snapshot(where, run / "best")
    with pytest.raises(CheckpointError, match="no snapshot in"):
        load_snapshot(None, tmp_path / "none")

    save(run, make_network(1).variables, classes=("cat", "dodo"))
    with pytest.raises(CheckpointError, match=r"best was made for other classes than .*step_"):
        load_snapshot(checkpoint, None)
    save(run, make_network(1).variables[:3])
    with pytest.raises(CheckpointError, match="has 3 variables"):
        load_snapshot(checkpoint, None)
    (checkpoint / "variables.npz").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"step_0000000007 is damaged \(variables.npz"):
        load_snapshot(checkpoint, None)


def test_a_checkpoint_of_something_else_is_told(run):
    Checkpoints(run / "checkpoints", 3).save(8, [np.zeros(3)], {"step": 1})
    folder = run / "checkpoints" / "step_0000000008"
    assert json.loads((folder / "state.json").read_text()) == {"step": 1}
    with pytest.raises(CheckpointError, match="no checkpoint of this project: no 'classes'"):
        load_snapshot(folder, None)
