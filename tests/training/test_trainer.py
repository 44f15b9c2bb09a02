"""The training loop: what is evaluated, saved and reported when; that resuming is exact."""

import dataclasses
import os
import shutil
import signal
import time

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from library.errors import DataError, DivergedError, SettingsError, StoppedError, UserError
from library.evaluation.split_metric import AreaMetric, CountedMetric
from library.messages import ChoiceError
from library.saving.snapshots import read_snapshot
from library.training.early_stopping import Monitor
from library.training.keras_fit import KerasFitTrainer
from library.training.parts import NoSchedule
from library.training.trainer import Trainer
from project.optimizers import OPTIMIZERS
from tests.helpers.small_run import (
    EPOCHS,
    IMAGES,
    LABELS,
    Inputs,
    Validation,
    assert_same,
    make_run,
    refuse_to_train,
    saved_steps,
    stopping_run,
)

# Resuming is exact, by either engine.


@pytest.mark.slow
def test_run_stopped_at_each_step_matches_uninterrupted_run(tmp_path, uninterrupted):
    # Either engine resumes either's run, and stops at each step of an epoch.
    engines = [Trainer, Trainer, KerasFitTrainer, KerasFitTrainer] * 2
    assert len(engines) == 3 * EPOCHS - 1
    for step, engine in enumerate(engines, start=1):
        with pytest.raises(StoppedError, match=rf"\(step {step}\)") as caught:
            stopping_run(tmp_path, step, trainer=engine).fit()
        assert caught.value.exit_code == 143
    run = make_run(tmp_path)
    run.fit()
    assert_same(run, uninterrupted)
    assert (tmp_path / "history.csv").read_text().count("\n") == EPOCHS + 1


RECIPES = {
    "accumulation": {"hyperparameters": {"gradient_accumulation_steps": 2}},
    "plateau": {
        # Nothing is that much better: the second evaluation is on a plateau.
        "monitor": Monitor(plateau_patience=1, min_delta=10.0),
        "steps_per_execution": 2,
        "hyperparameters": {"optimizer": "momentum"},
        "ema_decay": 0.9,
    },
    "loss_scale": {"loss_scale": "dynamic", "ema_decay": 0.9},
}


def overflow_sometimes(run):
    """Scale a loss until gradients are infinite: such a step makes no update."""
    if isinstance(run.parts.optimizer, keras.optimizers.LossScaleOptimizer):
        run.parts.optimizer.dynamic_scale.assign(1e6)
        run.parts.optimizer.dynamic_growth_steps = 1
    return run


@pytest.fixture
def float16():
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_resume_restores_every_kind_of_state(tmp_path, request, recipe):
    if recipe == "loss_scale":
        request.getfixturevalue("float16")
    options = RECIPES[recipe]
    whole = overflow_sometimes(make_run(tmp_path / "whole", **options))
    whole.fit()
    assert (float(whole.parts.schedule.factor) < 1) == (recipe == "plateau")
    is_missing_updates = int(whole.parts.optimizer.iterations) < whole.state.step
    assert is_missing_updates == (recipe in ("accumulation", "loss_scale"))
    # The first step of the third epoch: after the plateau, between two updates.
    stopped = stopping_run(tmp_path / "run", 7, trainer=KerasFitTrainer, **options)
    with pytest.raises(StoppedError):
        overflow_sometimes(stopped).fit()
    run = overflow_sometimes(make_run(tmp_path / "run", **options))
    run.fit()
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resume_restores_optimizer(tmp_path, optimizer):
    options = {"hyperparameters": {"optimizer": optimizer, "learning_rate": 0.01}}
    stopped = stopping_run(tmp_path, 2, **options)
    with pytest.raises(StoppedError, match="step 2"):
        stopped.fit()
    resumed = make_run(tmp_path, **options)
    resumed._resume()
    assert_same(resumed, stopped)
    restored = set(map(id, resumed.checkpoints.variables()))
    assert restored >= set(map(id, resumed.parts.optimizer.variables))


@pytest.mark.slow
def test_resume_restores_early_stopping(tmp_path, capsys):
    options = {
        "hyperparameters": {"learning_rate": 1e-12, "weight_decay": 0.0},
        "train_epochs": 20,
        "monitor": Monitor(patience=4, min_delta=0.5),
    }
    whole = make_run(tmp_path / "whole", **options)
    whole.fit()
    assert len(whole.state.rows) < 20
    assert "did not improve in 4 evaluations" in capsys.readouterr().err
    with pytest.raises(StoppedError):
        stopping_run(tmp_path / "run", 3 * (len(whole.state.rows) - 2), **options).fit()
    run = make_run(tmp_path / "run", **options)
    run.fit()
    assert_same(run, whole)
    capsys.readouterr()
    make_run(tmp_path / "run", **options).fit()
    assert "Already finished" in capsys.readouterr().err


# When it evaluates, saves and ends.


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        ({"steps_between_evals": 4}, [4, 8, 9]),
        ({"steps_between_evals": 4, "steps_per_execution": 3}, [4, 8, 9]),
        ({"steps_between_evals": 2, "steps_per_execution": 3}, [2, 4, 6, 8, 9]),
        ({"epochs_between_evals": 2}, [6, 9]),
        ({"epochs_between_evals": 1000}, [9]),
        ({"max_train_steps": 4}, [3, 4]),
        ({"eval_throttle_secs": 0.0}, list(range(1, 10))),
    ],
    ids=str,
)
def test_evaluated_steps(tmp_path, plan, steps):
    run = make_run(tmp_path, **plan)
    run.fit()
    assert [row["step"] for row in run.state.rows] == steps
    assert read_snapshot(tmp_path / "best").metrics == run.state.best


def test_checkpoints_by_time(tmp_path):
    run = make_run(tmp_path, epochs_between_evals=1000, save_checkpoints_secs=0)
    steps = saved_steps(run)
    run.fit()
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.slow
def test_time_budget(tmp_path):
    options = {"train_epochs": 1_000_000, "max_minutes": 3 / 60}
    run = make_run(tmp_path, **options)
    start = time.monotonic()
    run.fit()
    assert 1.5 < time.monotonic() - start < 60
    # The schedule has come to its end, too.
    assert float(run.parts.optimizer.learning_rate) < 0.05 * 0.05
    refuse_to_train(make_run(tmp_path, **options)).fit()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal(tmp_path, number, code):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(StoppedError, match=r"epoch 1 \(step 2\)") as caught:
        stopping_run(tmp_path, 2, number).fit()
    assert caught.value.exit_code == code
    # The handlers are restored.
    assert {each: signal.getsignal(each) for each in before} == before


class SignalingValidation(Validation):
    """Sends a signal with one of its batches, counted over all evaluations from 1."""

    def __init__(self, number, batch):
        super().__init__()
        self.number, self.batch, self.count = number, batch, 0

    def batches(self):
        for batch in super().batches():
            self.count += 1
            if self.count == self.batch:
                os.kill(os.getpid(), self.number)
            yield batch


def test_signal_stops_an_evaluation_which_is_repeated(tmp_path, uninterrupted):
    # An evaluation has four batches. The last process evaluates the stored best first.
    for batch, step, trainer in ((2, 3, Trainer), (6, 6, KerasFitTrainer), (10, 9, Trainer)):
        validation = SignalingValidation(signal.SIGINT, batch)
        with pytest.raises(StoppedError, match=rf"^Interrupted .*\(step {step}\).*saved"):
            make_run(tmp_path, validation=validation, trainer=trainer).fit()
        assert validation.count == batch
    run = make_run(tmp_path)
    run.fit()
    assert_same(run, uninterrupted)


def test_signal_after_the_last_evaluation_says_that_the_training_is_finished(tmp_path):
    run = make_run(tmp_path)
    save = run.best_snapshot.save_if_better

    def save_and_signal(state, validation):
        if state.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return save(state, validation)

    run.best_snapshot.save_if_better = save_and_signal
    with pytest.raises(StoppedError, match=r"^Terminated.*finished and saved") as caught:
        run.fit()
    assert caught.value.exit_code == 143
    refuse_to_train(make_run(tmp_path)).fit()


def test_run_that_starts_over_is_not_resumed_by_the_same_command(tmp_path):
    with pytest.raises(StoppedError, match="--resume auto"):
        stopping_run(tmp_path, 2, resume="never").fit()


def test_finished_run_changes_nothing(tmp_path, capsys):
    make_run(tmp_path).fit()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    run = refuse_to_train(make_run(tmp_path))
    assert run.fit()["value"] == pytest.approx(run.state.best["value"])
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    log = capsys.readouterr().err
    assert "Already finished (9 steps)" in log
    assert "--train_epochs" in log


# The best snapshot.


def test_best_snapshot(uninterrupted):
    best = read_snapshot(uninterrupted.paths.best)
    losses = [row["validation_loss"] for row in uninterrupted.state.rows]
    assert best.metrics["value"] == min(losses)
    assert best.metrics["epoch"] == 1 + losses.index(min(losses))
    assert best.classes == ("a", "b")
    assert losses[-1] < losses[0]
    scores = best.network(IMAGES.astype(np.float32)).numpy()
    assert (scores.argmax(1) == LABELS).mean() == best.metrics["validation"]["accuracy"]


def test_best_snapshot_by_other_metric(tmp_path):
    run = make_run(tmp_path, monitor=Monitor("accuracy"))
    run.fit()
    best = read_snapshot(tmp_path / "best").metrics
    assert best["monitored"] == "validation accuracy"
    assert best["value"] == max(row["validation_accuracy"] for row in run.state.rows)


@pytest.mark.parametrize("trainer", [Trainer, KerasFitTrainer])
def test_best_snapshot_by_metric_of_the_whole_split(tmp_path, uninterrupted, trainer):
    """The same training, another snapshot; also if it was stopped, and its best is evaluated."""
    metric = {"split_metric": AreaMetric("macro_roc_auc", 2), "monitor": Monitor("macro_roc_auc")}
    options = {**metric, "trainer": trainer}
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 7, **options).fit()
    run = make_run(tmp_path, **options)
    best, rows = run.fit(), run.state.rows
    values = [row["validation_macro_roc_auc"] for row in rows]
    assert best["value"] == max(values) > min(values)
    assert rows[best["epoch"] - 1]["validation_macro_roc_auc"] == best["value"]
    losses = [row["validation_loss"] for row in rows]
    assert losses == [row["validation_loss"] for row in uninterrupted.state.rows]
    scores = read_snapshot(tmp_path / "best").network(IMAGES.astype(np.float32)).numpy()
    assert best["value"] == pytest.approx(roc_auc_score(LABELS, scores[:, 1] - scores[:, 0]))
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header.endswith("validation_macro_roc_auc")


def test_undefined_metric_is_one_line(tmp_path):
    validation = Validation(IMAGES[LABELS == 0], LABELS[LABELS == 0])
    metric = {"split_metric": CountedMetric("recall:b", 2, "recall", 1)}
    with pytest.raises(DataError, match="validation recall:b"):
        make_run(tmp_path, validation=validation, **metric, monitor=Monitor("recall:b")).fit()


@pytest.mark.slow
def test_best_snapshot_has_ema_weights(tmp_path):
    run = make_run(tmp_path, train_epochs=1, ema_decay=0.9)
    run.fit()
    network = run.parts.network
    saved = [each.numpy() for each in read_snapshot(tmp_path / "best").network.variables]
    own = [each.numpy() for each in network.variables]
    assert not any(np.array_equal(a, b) for a, b in zip(saved[:4], own[:4], strict=True))
    with run.parts.ema.in_place():
        for mine, theirs in zip(network.variables, saved, strict=True):
            assert np.array_equal(mine, theirs) or "seed" in mine.path


def test_ema_follows_updates_not_steps(tmp_path):
    hyperparameters = {"gradient_accumulation_steps": 3}
    run = make_run(tmp_path, ema_decay=0.5, hyperparameters=hyperparameters)
    run.fit()
    assert (run.state.step, float(run.parts.ema.variables[-1])) == (9, 3.0)


@pytest.mark.parametrize("is_cached", [False, True])
def test_finished_run_replaces_missing_best(tmp_path, capsys, is_cached):
    options = {"train_epochs": 2, "ema_decay": 0.5, "is_cached": is_cached}
    make_run(tmp_path, **options).fit()
    shutil.rmtree(tmp_path / "best")
    run = refuse_to_train(make_run(tmp_path, **options))
    best = run.fit()
    assert best == read_snapshot(tmp_path / "best").metrics
    assert (best["epoch"], best["step"]) == (2, 6)
    assert best["value"] == pytest.approx(run.state.rows[-1]["validation_loss"])
    assert f"warning: The best snapshot, of epoch 2, is missing in {tmp_path}" in (
        capsys.readouterr().err
    )


def test_missing_best_is_replaced_by_worse_one(tmp_path):
    first = make_run(tmp_path, train_epochs=1)
    first.fit()
    shutil.rmtree(tmp_path / "best")
    options = {"learning_rate": 10.0, "learning_rate_decay_type": "fixed"}
    run = make_run(tmp_path, train_epochs=2, hyperparameters=options)
    assert run.fit()["value"] > first.state.best["value"]
    assert read_snapshot(tmp_path / "best").metrics == run.state.best


@pytest.mark.slow
def test_worse_epoch_after_resume_keeps_best(tmp_path, capsys):
    good = make_run(tmp_path, train_epochs=2)
    good.fit()
    model = (tmp_path / "best" / "model.keras").read_bytes()
    worse = make_run(tmp_path, train_epochs=3, hyperparameters={"learning_rate": 10.0})
    worse.fit()
    assert worse.state.rows[-1]["validation_loss"] > good.state.best["value"]
    assert (tmp_path / "best" / "model.keras").read_bytes() == model
    assert "lr, from 0.05 to 10.0" in capsys.readouterr().err


@pytest.mark.slow
def test_stored_best_counts_without_checkpoints(tmp_path):
    make_run(tmp_path, train_epochs=2).fit()
    best = read_snapshot(tmp_path / "best").metrics["value"]
    run = make_run(
        tmp_path / "elsewhere",
        train_epochs=1,
        hyperparameters={"learning_rate": 1e-9},
        paths={"best": tmp_path / "best"},
    )
    assert run.fit()["value"] == pytest.approx(best)
    assert read_snapshot(tmp_path / "best").metrics["value"] == best


# What goes wrong.


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [Trainer, KerasFitTrainer])
def test_infinite_loss_stops_and_keeps_best(tmp_path, trainer):
    make_run(tmp_path, train_epochs=1).fit()
    best = read_snapshot(tmp_path / "best").metrics
    with pytest.raises(DivergedError, match=r"step [5-9], learning rate .*e\+") as caught:
        make_run(
            tmp_path, train_epochs=3, trainer=trainer, hyperparameters={"learning_rate": 1e38}
        ).fit()
    assert caught.value.exit_code == 5
    assert read_snapshot(tmp_path / "best").metrics == best


@pytest.mark.slow
def test_diverged_weights_are_never_saved(tmp_path):
    """The training loss shows it only a step later: it is that of the weights before."""
    fast = {"optimizer": "sgd", "learning_rate": 1e30, "learning_rate_decay_type": "fixed"}
    with pytest.raises(DivergedError, match=r"validation loss .* step 1"):
        make_run(tmp_path, steps_between_evals=1, hyperparameters=fast).fit()
    assert not (tmp_path / "best").exists()
    assert not list(tmp_path.glob("checkpoints/step_*"))
    with pytest.raises(DivergedError, match=r"weights .* step 1"):
        make_run(tmp_path, save_checkpoints_secs=0, hyperparameters=fast).fit()
    # A smaller learning rate can start from what is left.
    make_run(tmp_path, hyperparameters={**fast, "learning_rate": 1e-3}).fit()


@pytest.mark.parametrize("trainer", [Trainer, KerasFitTrainer])
def test_too_few_examples(tmp_path, trainer):
    training = Inputs(examples=30, batches_per_epoch=4)
    with pytest.raises(DataError, match=r"epoch 1 .* batch 4 of 4"):
        make_run(tmp_path, training, trainer=trainer).fit()


def test_empty_validation(tmp_path):
    with pytest.raises(DataError, match="validation"):
        make_run(tmp_path, validation=Validation(IMAGES[:0], LABELS[:0])).fit()


def test_finished_run_needs_no_space(tmp_path, monkeypatch):
    make_run(tmp_path, train_epochs=1).fit()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    make_run(tmp_path, train_epochs=1).fit()
    with pytest.raises(UserError, match="0 MB"):
        make_run(tmp_path, train_epochs=2).fit()


def test_plateau_needs_schedule(tmp_path):
    run = make_run(tmp_path)
    parts = dataclasses.replace(run.parts, schedule=NoSchedule(run.parts.optimizer))
    plan = dataclasses.replace(run.plan, monitor=Monitor(plateau_patience=1))
    with pytest.raises(SettingsError, match="plateau_patience"):
        Trainer(parts, run.inputs, plan, run.paths)


def test_optimizer_without_schedule(tmp_path):
    run = make_run(tmp_path, train_epochs=1)
    parts = dataclasses.replace(run.parts, schedule=NoSchedule(run.parts.optimizer))
    assert Trainer(parts, run.inputs, run.plan, run.paths).fit()["epoch"] == 1


def test_impossible_plan_leaves_earlier_run(tmp_path):
    make_run(tmp_path / "run", train_epochs=1).fit()
    accumulation = {"gradient_accumulation_steps": 4}
    with pytest.raises(SettingsError, match="gradient_accumulation_steps 4"):
        make_run(
            tmp_path / "run", train_epochs=1, resume="never", hyperparameters=accumulation
        ).fit()
    with pytest.raises(ChoiceError, match=r"'los'.*'loss'"):
        make_run(tmp_path / "run", monitor=Monitor("los", "min"), resume="never").fit()
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_leftover_gradients_are_a_warning(tmp_path, capsys):
    make_run(tmp_path, train_epochs=1, hyperparameters={"gradient_accumulation_steps": 2}).fit()
    assert "warning: gradient_accumulation_steps 2" in capsys.readouterr().err


@pytest.mark.slow
def test_resume_never_moves_earlier_run(tmp_path, capsys):
    paths = {"checkpoints": tmp_path / "models", "best": tmp_path / "best"}
    for number in range(2):
        make_run(tmp_path / "run", train_epochs=1, resume="never", paths=paths).fit()
        log = capsys.readouterr().err
        assert "Resuming" not in log
        moved = [str(tmp_path / f"{name}.1") for name in ("run", "models", "best")]
        assert (", ".join(moved) in log) == bool(number)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        f"{name}{suffix}" for name in ("run", "models", "best") for suffix in ("", ".1")
    )
