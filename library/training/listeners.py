"""What a training reports while it runs, and the interface of those who listen.

The progress bar, history.csv, TensorBoard and the log lines are listeners. An experiment tracker is
another: it finds the settings in `on_start`, the metrics in `on_evaluation`, and the files to
upload in `on_finish`. Only the chief of several workers has listeners.
"""

from collections.abc import Callable, Mapping, Sequence
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
    learning_rate: Callable[[], float]  # as of now; may take as long as a step
    throughput: Throughput


@dataclass(frozen=True)
class Steps:
    """One call of the compiled training step: `count` steps, the last of which is `step`."""

    step: int
    count: int
    losses: tf.Tensor  # float32 (count,); reading them waits for the device
    images: int  # in these steps
    total_images: int  # of the whole training, as planned now


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
    """The end of a run."""

    best: Mapping[str, Any] | None  # metrics.json of the best snapshot
    stop_reason: str | None  # of early stopping
    error: BaseException | None  # what ended the run early, a signal included


class Listener:
    """Is told what happens in a run. Subclasses override what they are interested in."""

    def on_start(self, start: Start) -> None:
        """Open files; the run's folder can be written to from now on."""

    def on_epoch_start(self, epoch: int) -> None:
        """Notice an epoch, counted from 0."""

    def on_steps(self, steps: Steps) -> None:
        """Notice some training steps. Pause the throughput if this takes long."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Notice an evaluation; the best snapshot is saved, the checkpoint not yet."""

    def on_finish(self, finish: Finish) -> None:
        """Notice the end, also after an error, and close files."""
