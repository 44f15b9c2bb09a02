"""Training on cached features, where saving takes longer than an epoch."""

import numpy as np
import pytest

from library.errors import DivergedError, StoppedError
from library.saving.checkpoints import ema_variables
from library.saving.snapshots import read_snapshot
from tests.helpers.small_run import assert_same, make_run, saved_steps, stopping_run


def test_best_and_latest_are_saved_at_the_end(tmp_path, monkeypatch):
    # However slow the machine is.
    monkeypatch.setattr("library.training.trainer.SECONDS_UNSAVED", 1000)
    run = make_run(tmp_path, is_cached=True)
    measured = iter((0.5, 0.25, 0.75))
    seen = []

    def evaluate():
        assert not (tmp_path / "best").exists()
        seen.append([each.numpy() for each in ema_variables(run.parts.network)])
        return {"loss": next(measured), "accuracy": 0.5}

    run._evaluate = evaluate
    steps = saved_steps(run)
    run.fit()
    assert steps == [9]
    snapshot = read_snapshot(tmp_path / "best")
    assert snapshot.metrics == run.state.best
    assert (run.state.best["epoch"], run.state.best["value"]) == (2, 0.25)
    # The best is that of the second epoch; the network continues from the third.
    for values, network in ((seen[1], snapshot.network), (seen[2], run.parts.network)):
        for value, variable in zip(values, ema_variables(network), strict=True):
            assert np.array_equal(value, variable.numpy())


def test_best_and_latest_are_saved_after_some_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("library.training.trainer.SECONDS_UNSAVED", 0)
    run = make_run(tmp_path, is_cached=True)
    steps = saved_steps(run)
    run.fit()
    assert steps == [3, 6, 9]


@pytest.mark.slow
def test_stopped_run_matches_uninterrupted_run(tmp_path, uninterrupted):
    for step in (2, 3, 7):
        with pytest.raises(StoppedError):
            stopping_run(tmp_path, step, is_cached=True).fit()
    run = make_run(tmp_path, is_cached=True)
    run.fit()
    assert_same(run, uninterrupted)


def test_best_is_saved_when_training_fails(tmp_path):
    run = make_run(tmp_path, is_cached=True)
    train_steps = run.train_steps

    def train_steps_and_fail(iterator, count):
        losses, waited = train_steps(iterator, count)
        return losses * (float("nan") if run.state.step >= 5 else 1.0), waited

    run.train_steps = train_steps_and_fail
    with pytest.raises(DivergedError):
        run.fit()
    assert run.state.best["epoch"] == 1
    assert read_snapshot(tmp_path / "best").metrics == run.state.best
