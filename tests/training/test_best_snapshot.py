"""What counts as the best: improvement, early stopping, divergence, and the best snapshot."""

import dataclasses
import json
import math
import shutil

import keras
import numpy as np
import pytest

from library.errors import CheckpointError, DivergedError, SettingsError
from library.inputs.aspect_ratio import CROP, Fit
from library.models.features import CachedFeatures
from library.saving.snapshots import DATA, read_snapshot
from library.training.best_snapshot import BestSnapshot
from library.training.distribution import Devices
from library.training.divergence import (
    check_best,
    check_losses,
    check_state,
    check_validation_loss,
)
from library.training.early_stopping import EarlyStopping, Monitor
from library.training.parts import NoSchedule, Parts
from library.training.train_state import TrainState
from project.objective import Objective
from tests.helpers.small_run import make_paths
from tests.saving.test_snapshots import make_network

NETWORK = make_network()


def make_best(
    folder, network=NETWORK, classes=("a", "b"), is_cached=False, metric="loss", texts=None
):
    optimizer = keras.optimizers.SGD()
    cached = CachedFeatures(network, None, lambda _: None) if is_cached else None
    parts = Parts(network, Objective(), optimizer, NoSchedule(optimizer), cached_features=cached)
    paths = dataclasses.replace(make_paths(folder, classes), texts=texts or {})
    return BestSnapshot(parts, paths, Monitor(metric), Devices())


def at(epoch, step, best=None):
    return TrainState(step=step, epoch=epoch, best=best)


def test_only_improvements_are_saved(tmp_path):
    best, state = make_best(tmp_path), at(1, 10)
    assert best.save_if_better(state, {"loss": 0.5})
    assert not best.save_if_better(at(2, 20, state.best), {"loss": 0.5})
    state = at(3, 30, state.best)
    assert best.save_if_better(state, {"loss": 0.25})
    assert read_snapshot(tmp_path / "best").metrics == state.best
    assert state.best == {
        "epoch": 3,
        "step": 30,
        "monitored": "validation loss",
        "value": 0.25,
        "validation": {"loss": 0.25},
    }


def test_lower_loss_breaks_tie(tmp_path):
    best, state = make_best(tmp_path, metric="accuracy"), at(1, 10)
    assert best.save_if_better(state, {"loss": 8.0, "accuracy": 0.75})
    for loss in (8.0, 9.0, math.nan):
        assert not best.save_if_better(state, {"loss": loss, "accuracy": 0.75})
    state.epoch = 4
    assert best.save_if_better(state, {"loss": 0.5, "accuracy": 0.75})
    assert read_snapshot(tmp_path / "best").metrics["validation"]["loss"] == 0.5
    assert not best.save_if_better(state, {"loss": 0.25, "accuracy": 0.5})

    # After a restart, too.
    evaluated = {"loss": 0.5, "accuracy": 0.75}
    later, again = at(4, 40), make_best(tmp_path, metric="accuracy")
    again.evaluate_stored(later, lambda network: evaluated)
    assert not again.save_if_better(later, evaluated)
    assert again.save_if_better(later, {**evaluated, "loss": 0.25})


def test_best_without_loss_is_kept_in_a_tie(tmp_path):
    best = make_best(tmp_path, metric="accuracy")
    state = at(1, 10, {"epoch": 1, "value": 0.75, "validation": {}})
    assert not best.save_if_better(state, {"loss": 0.5, "accuracy": 0.75})
    assert best.save_if_better(state, {"loss": 0.5, "accuracy": 0.875})


def test_tie_does_not_count_for_patience():
    monitor, early_stopping = Monitor("accuracy", patience=3), EarlyStopping()
    for loss in (4.0, 3.0, 2.0, 1.0):
        early_stopping.update(monitor, {"loss": loss, "accuracy": 0.75})
    assert early_stopping.stopped


def test_pending_network_is_saved_as_it_was(tmp_path):
    network = make_network()
    best, state = make_best(tmp_path, network, is_cached=True), at(1, 10)
    was = [each.numpy() for each in network.variables]
    assert best.save_if_better(state, {"loss": 0.5})
    assert not (tmp_path / "best").exists()
    for each in network.variables:
        each.assign(each + 1)
    now = [each.numpy() for each in network.variables]
    assert not best.save_if_better(state, {"loss": 0.5})
    best.save_pending()
    snapshot = read_snapshot(tmp_path / "best")
    assert snapshot.metrics == state.best
    for expected, found in ((was, snapshot.network), (now, network)):
        for value, variable in zip(expected, found.variables, strict=True):
            assert np.array_equal(value, variable.numpy())
    # Only once.
    shutil.rmtree(tmp_path / "best")
    best.save_pending()
    assert not (tmp_path / "best").exists()


def test_nan_is_never_the_best(tmp_path):
    state = at(1, 10)
    assert not make_best(tmp_path).save_if_better(state, {"loss": math.nan, "accuracy": 1.0})
    assert state.best is None
    assert not (tmp_path / "best").exists()


def test_failed_save_is_not_remembered(tmp_path, monkeypatch):
    best, state = make_best(tmp_path), at(1, 10)
    best.save_if_better(state, {"loss": 0.5})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("library.training.best_snapshot.snapshots.write_snapshot", full)
    with pytest.raises(OSError, match="No space left"):
        best.save_if_better(state, {"loss": 0.25})
    assert state.best["value"] == 0.5


def test_stored_snapshot_counts_as_it_is_evaluated_now(tmp_path, capsys):
    best, state = make_best(tmp_path), at(3, 30)
    best.evaluate_stored(state, None)
    assert state.best is None
    assert capsys.readouterr().err == ""
    best.save_if_better(state, {"loss": 0.5})
    later = at(3, 30)
    make_best(tmp_path).evaluate_stored(later, lambda network: {"loss": 0.75})
    assert "validation loss 0.7500 (epoch 3)" in capsys.readouterr().err
    assert later.best == {**state.best, "value": 0.75, "validation": {"loss": 0.75}}


def test_missing_snapshot_is_no_longer_the_best(tmp_path, capsys):
    best, state = make_best(tmp_path), at(3, 30)
    best.save_if_better(state, {"loss": 0.5})
    shutil.rmtree(tmp_path / "best")
    best.evaluate_stored(state, None)
    assert state.best is None
    log = capsys.readouterr().err
    assert log.startswith("warning: ")
    assert str(tmp_path / "best") in log


def test_snapshot_of_another_run_is_refused(tmp_path):
    state = at(3, 30)
    make_best(tmp_path).save_if_better(state, {"loss": 0.5})
    with pytest.raises(CheckpointError, match=r"'b'.*'c'"):
        make_best(tmp_path, classes=("a", "c")).evaluate_stored(state, None)
    with pytest.raises(CheckpointError, match=r"\(4, 4, 1\).*\(5, 5, 1\)"):
        make_best(tmp_path, make_network(edge=5)).evaluate_stored(state, None)
    # Without a word about its fit, the snapshot was squeezed.
    texts = {DATA: json.dumps({"fit": Fit(CROP).to_json(), "fingerprint": None})}
    with pytest.raises(CheckpointError, match="fit"):
        make_best(tmp_path, texts=texts).evaluate_stored(state, None)


@pytest.mark.parametrize(
    ("mode", "value", "than", "better"),
    [
        ("min", 1.0, 2.0, True),
        ("min", 2.0, 1.0, False),
        ("max", 2.0, 1.0, True),
        ("max", 1.0, 1.0, False),
        ("min", math.inf, None, True),
        ("min", math.nan, None, False),
        ("max", math.nan, 1.0, False),
        ("min", -math.inf, 1.0, True),
    ],
)
def test_is_better(mode, value, than, better):
    metric = {"min": "loss", "max": "accuracy"}[mode]
    assert Monitor(metric).is_better(value, than) is better


def test_monitor_mode():
    modes = [Monitor(each).mode for each in ("loss", "accuracy", "exact_match")]
    assert modes == ["min", "max", "max"]
    assert Monitor("accuracy", "max") == Monitor("accuracy")
    assert Monitor("mine", "min").mode == "min"
    with pytest.raises(SettingsError, match=r"'acuracy'.*accuracy"):
        Monitor("acuracy")
    with pytest.raises(SettingsError, match=r"mode max .* loss .* min"):
        Monitor("loss", "max")


def update_all(monitor, values, name="loss"):
    early_stopping = EarlyStopping()
    return early_stopping, [early_stopping.update(monitor, {name: value}) for value in values]


def test_patience_counts_evaluations_in_a_row():
    monitor = Monitor(patience=2)
    early_stopping, _ = update_all(monitor, [3.0, 2.0, 2.5, 1.0, 1.0])
    assert early_stopping.stopped is None
    early_stopping.update(monitor, {"loss": math.nan})
    assert "2 evaluations" in early_stopping.stopped


def test_less_than_min_delta_is_no_improvement():
    monitor = Monitor(metric="accuracy", patience=2, min_delta=0.1)
    early_stopping, _ = update_all(monitor, [0.5, 0.55, 0.59], "accuracy")
    assert early_stopping.stopped


def test_learning_rate_falls_once_per_plateau():
    _, falls = update_all(Monitor(plateau_patience=2), [1.0, 1.0, 1.0, 1.0, 1.0, 0.5])
    assert falls == [False, False, True, False, True, False]


def test_stop_threshold_is_an_accuracy():
    early_stopping, monitor = EarlyStopping(), Monitor(stop_threshold=0.9)
    early_stopping.update(monitor, {"loss": 1.0, "accuracy": 0.89})
    assert early_stopping.stopped is None
    early_stopping.update(monitor, {"loss": 1.0, "accuracy": 0.9})
    assert "0.9000" in early_stopping.stopped


def test_early_stopping_continues_from_its_fields():
    monitor = Monitor(patience=3)
    early_stopping, _ = update_all(monitor, [1.0, 2.0, 2.0])
    restored = EarlyStopping(**dataclasses.asdict(early_stopping))
    restored.update(monitor, {"loss": 2.0})
    assert restored.stopped


def learning_rate_at(step):
    return step / 10


def test_first_infinite_loss_is_named():
    check_losses(np.ones(3, np.float32), 7, learning_rate_at)
    with pytest.raises(DivergedError, match=r"inf at step 6, learning rate 0\.6: .*learning_rate"):
        check_losses(np.array([1, np.inf, np.nan], np.float32), 7, learning_rate_at)


def test_infinite_validation_loss_is_named():
    check_validation_loss(1e30, 3, learning_rate_at)
    with pytest.raises(DivergedError, match=r"validation loss is nan .*step 3, learning rate 0\.3"):
        check_validation_loss(math.nan, 3, learning_rate_at)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e20])
def test_hopeless_state_is_refused(wrong):
    values = [np.zeros(3, np.float32), np.full(2, 2**32 - 1, np.uint32), np.zeros((), np.int64)]
    check_state(values, [*values, np.float32(1e20)], 3, learning_rate_at)
    with pytest.raises(DivergedError, match=r"weights .*step 3, learning rate 0\.3"):
        check_state([*values, np.array([0, wrong], np.float32)], [], 3, learning_rate_at)
    with pytest.raises(DivergedError, match=r"weights .*step 3"):
        check_state(values, [np.float32(np.nan)], 3, learning_rate_at)


def test_no_best():
    assert check_best({"value": 1.0}, "loss") == {"value": 1.0}
    with pytest.raises(DivergedError, match="accuracy"):
        check_best(None, "accuracy")
