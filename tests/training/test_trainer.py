"""The loop against an oracle: stopped anywhere and gone on with, it is the uninterrupted run."""

import dataclasses
import shutil
import signal
import time

import keras
import numpy as np
import pytest

from library.errors import DataError, DivergedError, StoppedError, UserError
from library.saving.snapshots import read_snapshot
from library.training.best_snapshot import BestSnapshot
from library.training.early_stopping import Monitor
from project.optimizers import OPTIMIZERS
from tests.helpers.small_run import (
    EPOCHS,
    IMAGES,
    LABELS,
    Inputs,
    Validation,
    assert_same,
    make_run,
    stopping_run,
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("uninterrupted"))
    run.run()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 3 * EPOCHS))
def test_stopped_at_any_step_and_gone_on_with_is_the_uninterrupted_run(
    tmp_path, uninterrupted, step
):
    with pytest.raises(StoppedError, match=rf"after step {step}; the state is saved") as caught:
        stopping_run(tmp_path, step).run()
    assert caught.value.exit_code == 143
    run = make_run(tmp_path)
    run.run()
    assert_same(run, uninterrupted)
    assert (tmp_path / "history.csv").read_text().count("\n") == EPOCHS + 1


RECIPES = {
    "momentum, averages": {"optimizer": "momentum"},
    "accumulation": {"gradient_accumulation_steps": 2},
    "plateau": {"plateau_patience": 1},
    "several steps at once": {},
    "scaled loss, averages": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
# The third epoch's first: after the plateau, between two updates.
@pytest.mark.parametrize("step", [7])
def test_so_it_is_with_every_kind_of_state(tmp_path, request, recipe, step):
    if "scaled" in recipe:
        request.getfixturevalue("float16")
    options = {"hyperparameters": {k: v for k, v in RECIPES[recipe].items() if k != "plan"}}
    options["average_decay"] = 0.9 if "averages" in recipe else None
    patience = options["hyperparameters"].pop("plateau_patience", None)
    # So much better nothing is: the second evaluation is on a plateau.
    goal = Monitor(plateau_patience=patience, min_delta=10.0)
    options |= {"goal": goal, "steps_per_execution": 2 if "several" in recipe else 1}
    options["loss_scale"] = "dynamic" if "scaled" in recipe else None
    whole, parts = make_run(tmp_path / "whole", **options), tmp_path / "parts"
    overflow_now_and_then(whole)
    whole.run()
    assert (float(whole.learning_rate.factor) < 1) == (recipe == "plateau")
    assert (int(whole.optimizer.iterations) < whole.step) == (recipe in MISSING_UPDATES)
    run = stopping_run(parts, step, **options)
    overflow_now_and_then(run)
    with pytest.raises(StoppedError):
        run.run()
    run = make_run(parts, **options)
    overflow_now_and_then(run)
    run.run()
    assert_same(run, whole)


MISSING_UPDATES = ("accumulation", "scaled loss, averages")


@pytest.fixture
def float16():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def overflow_now_and_then(run):
    """Let a loss be scaled until gradients are infinite: such a step makes no update."""
    if isinstance(run.optimizer, keras.optimizers.LossScaleOptimizer):
        run.optimizer.dynamic_scale.assign(1e6)
        run.optimizer.dynamic_growth_steps = 1


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_so_it_is_with_every_optimizer(tmp_path, name):
    options = {"hyperparameters": {"optimizer": name, "learning_rate": 0.01}}
    whole = make_run(tmp_path / "whole", **options)
    whole.run()
    with pytest.raises(StoppedError):
        stopping_run(tmp_path / "parts", 5, **options).run()
    run = make_run(tmp_path / "parts", **options)
    run.run()
    assert_same(run, whole)


@pytest.mark.slow
def test_early_stopping_goes_on_counting_after_a_stop(tmp_path, capsys):
    options = {
        "hyperparameters": {"learning_rate": 1e-12, "weight_decay": 0.0},
        "train_epochs": 20,
        "goal": Monitor(patience=4, min_delta=0.5),
    }
    whole = make_run(tmp_path / "whole", **options)
    whole.run()
    assert len(whole.rows) < 20
    assert "stopped early: no better validation loss in 4 evaluations" in capsys.readouterr().err
    with pytest.raises(StoppedError):
        stopping_run(tmp_path / "parts", 3 * (len(whole.rows) - 2), **options).run()
    run = make_run(tmp_path / "parts", **options)
    run.run()
    assert_same(run, whole)
    capsys.readouterr()
    make_run(tmp_path / "parts", **options).run()
    assert "finished already" in capsys.readouterr().err


def test_evaluation_by_steps(tmp_path):
    run = make_run(tmp_path, steps_between_evals=4, steps_per_execution=3)
    run.run()
    assert [row["step"] for row in run.rows] == [4, 8, 9]


def test_a_summary_at_the_very_end_of_an_epoch(tmp_path):
    # Shows the images that come next, which are another epoch's.
    run = make_run(tmp_path, save_summary_steps=3, epochs_between_evals=2, train_epochs=2)
    run.run()
    assert run.step == 6


@pytest.mark.slow
def test_evaluation_by_seconds(tmp_path):
    run = make_run(tmp_path, eval_throttle_secs=0.0)
    run.run()
    assert [row["step"] for row in run.rows] == list(range(1, 10))


@pytest.mark.slow
def test_a_training_fits_its_time(tmp_path):
    run = make_run(tmp_path, train_epochs=1_000_000, max_minutes=3 / 60)
    start = time.monotonic()
    run.run()
    assert 1.5 < time.monotonic() - start < 10
    # The schedule has come to its end, too.
    assert float(run.optimizer.learning_rate) < 0.05 * 0.05
    again = make_run(tmp_path, train_epochs=1_000_000, max_minutes=3 / 60)
    again.train_steps = lambda *_: pytest.fail("trained past its time")
    again.run()


def test_averages_follow_updates_not_steps(tmp_path):
    options = {"average_decay": 0.5, "hyperparameters": {"gradient_accumulation_steps": 3}}
    run = make_run(tmp_path, **options)
    run.run()
    assert (run.step, float(run.averages.variables[-1])) == (9, 3.0)


def test_the_best_is_that_of_the_goal(tmp_path):
    run = make_run(tmp_path, goal=Monitor("accuracy"))
    run.run()
    best = read_snapshot(tmp_path / "best").metrics
    assert best["monitored"] == "validation accuracy"
    assert best["value"] == max(row["validation_accuracy"] for row in run.rows)


@pytest.mark.slow
def test_the_snapshot_has_the_averaged_weights(tmp_path):
    run = make_run(tmp_path, train_epochs=1, average_decay=0.9)
    run.run()
    kept = [each.numpy() for each in read_snapshot(tmp_path / "best").network.variables]
    own = [each.numpy() for each in run.network.variables]
    assert not any(np.array_equal(a, b) for a, b in zip(kept[:4], own[:4], strict=True))
    with run.averages.in_place():
        for mine, theirs in zip(run.network.variables, kept, strict=True):
            assert np.array_equal(mine, theirs) or "seed" in mine.path


def test_an_interrupt_is_130(tmp_path):
    with pytest.raises(StoppedError, match="interrupted in epoch 1") as caught:
        stopping_run(tmp_path, 2, signal.SIGINT).run()
    assert caught.value.exit_code == 130


def test_the_two_stop_handlers_are_put_back(tmp_path):
    # A shell starts what runs in its background without SIGINT.
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    make_run(tmp_path, max_train_steps=1).run()
    assert {each: signal.getsignal(each) for each in before} == before


def test_it_learns_and_keeps_the_best(uninterrupted):
    best = read_snapshot(uninterrupted.paths.best)
    losses = [row["validation_loss"] for row in uninterrupted.rows]
    assert best.metrics["value"] == min(losses)
    assert best.metrics["epoch"] == 1 + losses.index(min(losses))
    assert best.classes == ("a", "b")
    assert losses[-1] < losses[0]
    scores = best.network(IMAGES.astype(np.float32)).numpy()
    assert (scores.argmax(1) == LABELS).mean() == best.metrics["validation"]["accuracy"]


def test_a_finished_run_started_again_does_nothing(tmp_path, capsys):
    make_run(tmp_path).run()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    run = make_run(tmp_path)
    run.train_steps = lambda *_: pytest.fail("trained again")
    assert run.run()["value"] == pytest.approx(run.best["value"])
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    words = "finished already, after 9 steps: more train_epochs would go on"
    assert words in capsys.readouterr().err


def test_a_finished_run_whose_best_is_gone_keeps_what_it_has(tmp_path, capsys):
    make_run(tmp_path, train_epochs=2, average_decay=0.5).run()
    shutil.rmtree(tmp_path / "best")
    run = make_run(tmp_path, train_epochs=2, average_decay=0.5)
    run.train_steps = lambda *_: pytest.fail("trained again")
    assert run.run() == read_snapshot(tmp_path / "best").metrics
    assert (run.best["epoch"], run.best["step"]) == (2, 6)
    assert run.best["value"] == pytest.approx(run.rows[-1]["validation_loss"])
    told = capsys.readouterr().err
    assert f"is no longer in {tmp_path / 'best'}" in told
    assert "in its place the last is kept, of epoch 2" in told


def test_a_best_that_is_gone_is_replaced_by_the_next_even_if_that_is_worse(tmp_path):
    first = make_run(tmp_path, train_epochs=1)
    first.run()
    shutil.rmtree(tmp_path / "best")
    options = {"learning_rate": 10.0, "learning_rate_decay_type": "fixed"}
    run = make_run(tmp_path, train_epochs=2, hyperparameters=options)
    assert run.run()["value"] > first.best["value"]
    assert read_snapshot(tmp_path / "best").metrics == run.best


def test_a_finished_run_needs_no_room(tmp_path, monkeypatch):
    make_run(tmp_path, train_epochs=1).run()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    make_run(tmp_path, train_epochs=1).run()
    with pytest.raises(UserError, match="has 0 MB left"):
        make_run(tmp_path, train_epochs=2).run()


@pytest.mark.slow
def test_a_worse_epoch_after_a_restart_never_replaces_the_best(tmp_path, capsys):
    good = make_run(tmp_path, train_epochs=2)
    good.run()
    kept = (tmp_path / "best" / "model.keras").read_bytes()
    worse = make_run(tmp_path, train_epochs=3, hyperparameters={"learning_rate": 10.0})
    worse.run()
    stored = good.best["value"]
    assert worse.rows[-1]["validation_loss"] > stored
    assert (tmp_path / "best" / "model.keras").read_bytes() == kept
    assert "changed since: lr was 0.05, is 10.0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_stored_best_is_evaluated_again_even_without_checkpoints(tmp_path):
    make_run(tmp_path, train_epochs=2).run()
    best = read_snapshot(tmp_path / "best").metrics["value"]
    run = make_run(tmp_path / "elsewhere", train_epochs=1, hyperparameters={"learning_rate": 1e-9})
    paths = dataclasses.replace(run.paths, best=tmp_path / "best")
    run.keeper = BestSnapshot(paths, run.plan.goal, run.devices)
    run.run()
    assert run.best["value"] == pytest.approx(best)
    assert read_snapshot(tmp_path / "best").metrics["value"] == best


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_keeps_the_best(tmp_path):
    make_run(tmp_path, train_epochs=1).run()
    best = read_snapshot(tmp_path / "best").metrics
    with pytest.raises(
        DivergedError, match=r"the loss is (nan|inf) at step [5-9], learning rate .*e\+"
    ) as caught:
        make_run(tmp_path, train_epochs=3, hyperparameters={"learning_rate": 1e38}).run()
    assert caught.value.exit_code == 5
    assert read_snapshot(tmp_path / "best").metrics == best


FAST = {"optimizer": "sgd", "learning_rate": 1e30, "learning_rate_decay_type": "fixed"}


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_never_kept(tmp_path):
    """The loss tells it only a step later: it is that of the weights before."""
    with pytest.raises(DivergedError, match=r"validation loss is (nan|inf) after step 1, learning"):
        make_run(tmp_path, steps_between_evals=1, hyperparameters=FAST).run()
    assert not (tmp_path / "best").exists()
    assert not list(tmp_path.glob("checkpoints/step_*"))
    with pytest.raises(DivergedError, match="weights are too large, or no numbers, after step 1"):
        make_run(tmp_path, save_checkpoints_secs=0, hyperparameters=FAST).run()
    # From what is left, a smaller learning rate goes on.
    make_run(tmp_path, hyperparameters={**FAST, "learning_rate": 1e-3}).run()


def test_evaluations_rarer_than_the_training_is_long_still_make_one(tmp_path):
    run = make_run(tmp_path, epochs_between_evals=1000)
    run.run()
    assert [row["epoch"] for row in run.rows] == [EPOCHS]
    assert read_snapshot(tmp_path / "best").metrics["epoch"] == EPOCHS


@pytest.mark.slow
def test_every_second_epoch_is_evaluated_and_the_last(tmp_path):
    run = make_run(tmp_path, epochs_between_evals=2)
    run.run()
    assert [row["epoch"] for row in run.rows] == [2, 3]


def test_max_train_steps_stops_in_the_middle_of_an_epoch(tmp_path):
    run = make_run(tmp_path, max_train_steps=4)
    run.run()
    assert [row["step"] for row in run.rows] == [3, 4]


def test_checkpoints_by_time(tmp_path):
    run = make_run(tmp_path, epochs_between_evals=1000, save_checkpoints_secs=0)
    steps = []
    run.checkpoints.save = lambda step, *_: steps.append(step)
    run.run()
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_fewer_examples_than_the_manifest_says_is_an_error(tmp_path):
    training = Inputs(examples=30, batches_per_epoch=4)
    with pytest.raises(DataError, match="epoch 1 ended before batch 4 of 4"):
        make_run(tmp_path, training).run()


def test_an_empty_validation_is_an_error(tmp_path):
    with pytest.raises(DataError, match="the validation split is empty"):
        make_run(tmp_path, validation=Validation(IMAGES[:0], LABELS[:0])).run()
