"""What a training reports while it runs, and the interface of those who listen.

The progress bar, history.csv, TensorBoard and the log lines are listeners. An experiment tracker is
another: it finds the settings in `on_start`, the metrics in `on_evaluation`, and the files to
upload in `on_finish`. Only the chief of several workers has listeners.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from library.training.plan import Plan, RunPaths
from library.training.throughput import Throughput


@dataclass(frozen=True)
class Start:
    """What is known when a run starts or resumes."""

    network: keras.Model
    plan: Plan
    paths: RunPaths  # the folders, the class names and the settings
    rows: Sequence[Mapping[str, Any]]  # evaluations before a resume, as in history.csv
    best: Mapping[str, Any] | None  # metrics.json of the best snapshot, if there is one
    images: int  # trained on so far
    total_images: int  # of the whole training
    # Returns the training batches that come next; at the end of an epoch, those of the next one.
    next_batches: Callable[[], tf.data.Dataset]


@dataclass(frozen=True)
class Steps:
    """One call of the compiled training step: `count` steps, the last of which is `step`."""

    step: int
    count: int
    losses: tf.Tensor  # float32 (count,); reading them waits for the device
    images: int  # in these steps
    total_images: int  # of the whole training, as planned now
    learning_rate: Callable[[], float]  # may take as long as a step
    throughput: Throughput


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation split."""

    row: Mapping[str, Any]  # epoch, step, learning_rate, images_per_second and all metrics
    training: Mapping[str, float]  # means since the evaluation before
    validation: Mapping[str, float]
    best: Mapping[str, Any] | None  # metrics.json of the best snapshot so far
    is_best: bool  # whether it is that of this evaluation


@dataclass(frozen=True)
class Finish:
    """The end of a run that was neither stopped nor failed."""

    best: Mapping[str, Any] | None  # metrics.json of the best snapshot
    stop_reason: str | None  # of early stopping
    throughput: Throughput


class Listener:
    """Is told what happens in a run. Subclasses override what they are interested in."""

    def on_start(self, start: Start) -> None:
        """Open files; the run's folder can be written to from now on."""

    def on_epoch_start(self, epoch: int) -> None:
        """Notice an epoch, counted from 0."""

    def on_steps(self, steps: Steps) -> None:
        """Notice some training steps. Counts as training time: pause the throughput if slow."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Notice an evaluation; the best snapshot is saved, the checkpoint not yet."""

    def on_finish(self, finish: Finish) -> None:
        """Notice the regular end of the training."""

    def close(self, error: BaseException | None) -> None:
        """Close files. `error` is what ended the run early, a signal included; else None."""


class Listeners:
    """Reports to several listeners in turn."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    @contextlib.contextmanager
    def listening(self, start: Start, finish: Callable[[], Finish]) -> Iterator[None]:
        """Report the start and the end of the block; `finish` returns what to report."""
        for listener in self._listeners:
            listener.on_start(start)
        error: BaseException | None = None
        try:
            yield
            end = finish()
            for listener in self._listeners:
                listener.on_finish(end)
        except BaseException as raised:
            error = raised
            raise
        finally:
            for listener in self._listeners:
                listener.close(error)

    def on_epoch_start(self, epoch: int) -> None:
        """Report an epoch, counted from 0."""
        for listener in self._listeners:
            listener.on_epoch_start(epoch)

    def on_steps(self, steps: Steps) -> None:
        """Report some training steps."""
        for listener in self._listeners:
            listener.on_steps(steps)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Report an evaluation."""
        for listener in self._listeners:
            listener.on_evaluation(evaluation)
