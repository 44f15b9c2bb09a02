"""When a training evaluates, saves and ends, by steps, by epochs or by time; and how fast it is."""

import contextlib
import signal
import time
from collections.abc import Iterator

import tensorflow as tf

from library.inputs.interfaces import TrainingInputs
from library.training.distribution import Devices
from library.training.plan import Plan
from library.training.train_state import TrainState


class Timetable:
    """What is due, by a plan and by the chief's clock.

    The clock is read by `sync` only, so that all workers decide alike.
    """

    def __init__(self, plan: Plan, training: TrainingInputs, devices: Devices) -> None:
        self._plan, self._training, self._devices = plan, training, devices
        self.total_steps = plan.total_steps(training.batches_per_epoch)
        self._seconds_before = 0.0  # spent in earlier processes
        self._now = self._started_at = self._saved_at = self._evaluated_at = 0.0

    def start(self) -> None:
        """Start the clock."""
        self.sync()
        self._started_at = self._saved_at = self._evaluated_at = self._now

    def resume(self, state: TrainState) -> None:
        """Count the seconds that earlier processes spent, too."""
        self._seconds_before = state.elapsed_seconds

    def sync(self, received: signal.Signals | None = None) -> signal.Signals | None:
        """Read the clock. Return the signal that this worker or any other one received."""
        received, self._now = self._devices.agree(received)
        return received

    def mark_saved(self) -> None:
        """Note that a checkpoint was saved."""
        self._saved_at = self._now

    def mark_evaluated(self) -> None:
        """Note that an evaluation was made."""
        self.sync()
        self._evaluated_at = self._now

    @property
    def elapsed(self) -> float:
        """Seconds spent so far, in earlier processes too."""
        return self._seconds_before + self._now - self._started_at

    @property
    def since_save(self) -> float:
        """Seconds since the last checkpoint."""
        return self._now - self._saved_at

    @property
    def total_images(self) -> int:
        """Number of images in the whole training."""
        return self.total_steps * self._training.examples // self._training.batches_per_epoch

    @property
    def limit(self) -> str:
        """Name of the setting that ends the training."""
        batches_per_epoch = self._training.batches_per_epoch
        if self.total_steps < self._plan.total_steps(batches_per_epoch):
            return "max_minutes"
        is_whole = self.total_steps == self._plan.train_epochs * batches_per_epoch
        return "train_epochs" if is_whole else "max_train_steps"

    def images(self, state: TrainState) -> int:
        """Return the number of images trained on so far."""
        in_epoch = min(state.batch * self._training.batch_size, self._training.examples)
        return state.epoch * self._training.examples + in_epoch

    def fit_to_time(self, state: TrainState) -> bool:
        """Set the total steps to those that fit into the time budget, at the speed so far.

        Returns:
            Whether there is a time budget.
        """
        if self._plan.max_minutes is None:
            return False
        left = self._plan.max_minutes * 60 - self.elapsed  # may be infinite
        if left <= 0:
            self.total_steps = state.step
        else:
            planned = self._plan.total_steps(self._training.batches_per_epoch)
            fitting = state.step * (1 + left / max(self.elapsed, 1e-9))
            # min before round, because infinity can't be rounded.
            self.total_steps = max(round(min(planned, fitting)), state.step + 1)
        return True

    def has_work(self, state: TrainState) -> bool:
        """Return whether there is anything to do, be it only a last evaluation."""
        return self.evaluation_is_due(state) or not self.is_finished(state)

    def is_finished(self, state: TrainState) -> bool:
        """Return whether there is no step to make."""
        return state.step >= self.total_steps or state.early_stopping.stopped is not None

    def evaluation_is_due(self, state: TrainState) -> bool:
        """Return whether to evaluate before the next step."""
        plan = self._plan
        if state.step == state.evaluated_step:
            return False
        if state.step >= self.total_steps:
            return True
        if plan.eval_throttle_secs is not None:
            return self._now - self._evaluated_at >= plan.eval_throttle_secs
        if plan.steps_between_evals is not None:
            return state.step % plan.steps_between_evals == 0
        return state.batch == 0 and state.epoch % plan.epochs_between_evals == 0

    def save_is_due(self, state: TrainState) -> bool:
        """Return whether to save within an epoch. (Each evaluation saves, too.)"""
        is_old = self.since_save > self._plan.save_checkpoints_secs
        return is_old and not self.evaluation_is_due(state)

    def step_is_due(self, state: TrainState) -> bool:
        """Return whether the next thing to do is another step of this epoch."""
        return (
            state.batch < self._training.batches_per_epoch
            and not self.is_finished(state)
            and not self.evaluation_is_due(state)
        )

    def steps_until_due(self, state: TrainState) -> int:
        """Return the number of steps until the epoch or the training ends, or an evaluation."""
        limits = [self._training.batches_per_epoch - state.batch, self.total_steps - state.step]
        if every := self._plan.steps_between_evals:
            limits.append(every - state.step % every)
        return min(limits)


class Throughput:
    """Counts images and the seconds spent training, without pauses (evaluations, drawings)."""

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._resumed_at: float | None = time.perf_counter()  # None: paused
        # A tensor once there is one: adding does not wait for the device, reading would.
        self._input_wait: tf.Tensor | None = None
        self._marks: dict[str, tuple[float, float]] = {}

    def add(self, images: int, input_wait_seconds: tf.Tensor | None = None) -> None:
        """Count images trained on, and the seconds waited for them if they were measured."""
        self._images += images
        if input_wait_seconds is not None:
            before = 0.0 if self._input_wait is None else self._input_wait
            self._input_wait = before + input_wait_seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within the block as training."""
        self._seconds, self._resumed_at = self._training_seconds(), None
        try:
            yield
        finally:
            self._resumed_at = time.perf_counter()

    def images_per_second(self, between: str) -> float:
        """Return the mean rate since the last call with the same `between`, such as "summaries"."""
        return self._rate(f"images, {between}", self._images)

    def input_wait_share(self, between: str) -> float | None:
        """Return the share of the time since the same last call that was spent waiting for input.

        None if it was not measured.
        """
        if self._input_wait is None:
            return None
        return self._rate(f"input, {between}", float(self._input_wait))

    def _rate(self, name: str, total: float) -> float:
        """Return a total's increase per second of training since the last call with its name."""
        now = total, self._training_seconds()
        before, seconds = self._marks.get(name, (0, 0.0))
        self._marks[name] = now
        return (total - before) / max(now[1] - seconds, 1e-9)

    def _training_seconds(self) -> float:
        running = 0.0 if self._resumed_at is None else time.perf_counter() - self._resumed_at
        return self._seconds + running
