"""What ends a training early, or when: signals and the timetable."""

import math
import signal

import pytest

from library.training.early_stopping import EarlyStopping
from library.training.interruption import StopOnSignal, stopped_error
from library.training.timetable import Timetable
from library.training.train_state import TrainState
from tests.helpers.small_run import Inputs, make_plan


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_remembered(number):
    with StopOnSignal() as stop:
        signal.raise_signal(number)
        assert stop.received == number


def test_stopped_error():
    error = stopped_error(signal.SIGINT, 14, 53)
    assert str(error).startswith("Interrupted in epoch 14 (step 53).")
    assert error.exit_code == 130
    assert stopped_error(signal.SIGTERM, 1, 1).exit_code == 143


class Clock:
    """Stands for the devices: a clock that is moved by hand."""

    now = 100.0

    def agree(self, received):
        return received, self.now


def make_timetable(clock=None, **plan):
    """That of three epochs of three batches, of 22 images in all."""
    return Timetable(make_plan(**plan), Inputs(), clock or Clock())


def test_clock_continues_after_resume():
    clock = Clock()
    timetable = make_timetable(clock)
    timetable.start()
    timetable.resume(TrainState(elapsed_seconds=7.0))
    clock.now += 3
    assert timetable.elapsed == 7.0  # as of the last sync
    assert timetable.sync(signal.SIGINT) == signal.SIGINT
    assert timetable.elapsed == 10.0
    assert timetable.since_save == 3
    timetable.mark_saved()
    assert timetable.since_save == 0


@pytest.mark.parametrize(
    ("step", "seconds", "fitting"),
    [
        (5, 20, 10),
        (5, 1000, 100),
        (5, 10, 5),
        (5, 4, 5),
        (5, 10.5, 6),
        (0, 20, 1),
        (5, math.inf, 100),
    ],
)
def test_fit_to_time(step, seconds, fitting):
    timetable = make_timetable(train_epochs=100, max_train_steps=100, max_minutes=seconds / 60)
    timetable.start()
    state = TrainState(step=step, elapsed_seconds=10.0)
    timetable.resume(state)
    assert timetable.fit_to_time(state)
    assert timetable.total_steps == fitting


def test_without_time_budget():
    timetable = make_timetable()
    assert not timetable.fit_to_time(TrainState(step=5))
    assert timetable.total_steps == 9


@pytest.mark.parametrize(
    ("plan", "state", "is_due"),
    [
        ({}, TrainState(), False),
        ({}, TrainState(step=2, batch=2), False),
        ({}, TrainState(step=3, epoch=1), True),
        ({}, TrainState(step=3, epoch=1, rows=[{"step": 3}]), False),
        ({"epochs_between_evals": 2}, TrainState(step=3, epoch=1), False),
        ({"max_train_steps": 2}, TrainState(step=2, batch=2), True),
        ({"steps_between_evals": 2}, TrainState(step=2, batch=2), True),
        ({"steps_between_evals": 2}, TrainState(step=3, epoch=1), False),
        ({"eval_throttle_secs": 0.0}, TrainState(step=1, batch=1), True),
        ({"eval_throttle_secs": 9.0}, TrainState(step=3, epoch=1), False),
    ],
    ids=str,
)
def test_evaluation_is_due(plan, state, is_due):
    timetable = make_timetable(**plan)
    timetable.start()
    assert timetable.evaluation_is_due(state) == is_due


@pytest.mark.parametrize(
    ("plan", "step", "batch", "steps"),
    [
        ({}, 0, 0, 3),
        ({}, 5, 2, 1),
        ({"max_train_steps": 4}, 3, 0, 1),
        ({"steps_between_evals": 2}, 0, 0, 2),
        ({"steps_between_evals": 2}, 4, 1, 2),
        ({"steps_between_evals": 4}, 6, 0, 2),
    ],
    ids=str,
)
def test_steps_until_due(plan, step, batch, steps):
    assert make_timetable(**plan).steps_until_due(TrainState(step=step, batch=batch)) == steps


def test_finished():
    timetable = make_timetable()
    evaluated = [{"step": 9}]
    assert timetable.has_work(TrainState(step=9, epoch=3))
    assert not timetable.has_work(TrainState(step=9, epoch=3, rows=evaluated))
    stopped = EarlyStopping(stopped="reason")
    state = TrainState(step=3, epoch=1, rows=[{"step": 3}], early_stopping=stopped)
    assert not timetable.has_work(state)
    assert not timetable.step_is_due(state)


def test_images():
    timetable = make_timetable(max_train_steps=4)
    assert timetable.images(TrainState(step=3, batch=3)) == 22
    assert timetable.images(TrainState(step=4, epoch=1, batch=1)) == 30
    assert timetable.total_images == 4 * 22 // 3


def test_limit():
    assert make_timetable().limit == "train_epochs"
    assert make_timetable(max_train_steps=50).limit == "train_epochs"
    assert make_timetable(max_train_steps=5).limit == "max_train_steps"
    timetable = make_timetable(max_minutes=1.0)
    timetable.total_steps = 4
    assert timetable.limit == "max_minutes"
