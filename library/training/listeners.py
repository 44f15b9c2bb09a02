"""What a training reports while it runs, and the interface of those who listen.

The progress bar, history.csv, TensorBoard and the log lines are listeners. An experiment tracker is
another: it finds the settings in `on_start`, the metrics in `on_evaluation`, and the files to
upload in `on_finish`. Only the chief of several workers has listeners.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from library.errors import first_line
from library.training.plan import Plan, RunPaths
from library.training.timetable import Throughput, Timetable
from library.training.train_state import TrainState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What listeners see of a run. The state, the timetable and the throughput change with it."""

    network: keras.Model
    plan: Plan
    paths: RunPaths  # the folders, the class names and the settings
    state: TrainState
    timetable: Timetable
    throughput: Throughput
    # Returns the training batches that come next; at the end of an epoch, those of the next one.
    next_batches: Callable[[], tf.data.Dataset]
    # Name → value as of now; may take as long as a step.
    learning_rates: Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the validation split."""

    row: Mapping[str, Any]  # epoch, step, learning rates, images_per_second and metrics
    training: Mapping[str, float]  # means since the evaluation before
    validation: Mapping[str, float]
    is_best: bool  # whether the best snapshot is that of this evaluation


class Listener:
    """Is told what happens in `run`. Subclasses override what they are interested in."""

    def on_start(self, run: Run) -> None:
        """Open files; the run's folder can be written to from now on."""
        self.run = run

    def on_epoch_start(self, epoch: int) -> None:
        """Notice an epoch, counted from 0."""

    def on_steps(self, count: int, losses: tf.Tensor) -> None:
        """Notice some training steps, up to `state.step`. Pause the throughput if this takes long.

        Args:
            count: Number of steps.
            losses: float32 (count,), or only the last ones; reading them waits for the device.
        """

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Notice an evaluation; the best snapshot is saved, the checkpoint not yet."""

    def on_finish(self, error: BaseException | None) -> None:
        """Notice the end, and close files; `error`, maybe of a signal, ended the run early."""


def try_to_write(what: str, write: Callable[..., object], *arguments: Any) -> bool:
    """Call a function that writes files which a training can do without.

    Args:
        what: The beginning of the warning if they can't be written.
        write: The function.
        *arguments: Its arguments.

    Returns:
        Whether they were written.
    """
    try:
        write(*arguments)
    except (OSError, tf.errors.OpError) as error:
        logger.warning(f"{what} ({first_line(error)}); the training continues")
        return False
    return True
