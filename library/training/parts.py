"""What a training is made of, and the interfaces of the parts that project/ supplies."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from library.inputs.interfaces import EvaluationInputs, TrainingInputs
from library.models.features import CachedFeatures
from library.models.freezing import Unfreezing
from library.training.ema import ExponentialMovingAverage


class RunInputs(NamedTuple):
    """The two splits of a run."""

    training: TrainingInputs
    validation: EvaluationInputs


class Objective(Protocol):
    """What is minimized, and the metrics beside it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, the loss first."""

    def metrics(self, labels: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return each metric's value per example: name → float32 (batch,)."""

    def training_losses(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Return the loss to minimize per example, float32 (batch,)."""

    def penalty(self, network: keras.Model) -> tf.Tensor:
        """Return the scalar that is added to the mean loss."""


class SplitMetric(Protocol):
    """A metric of a whole split that is not a mean over its images, such as macro F1."""

    @property
    def name(self) -> str:
        """Name of the metric."""

    def compute(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
        """Return the metric over batches of (labels, scores); NaN if it is undefined."""


class Schedule(Protocol):
    """The learning rate as a function of the number of updates of the weights."""

    # float32 scalars, so that a compiled step sees them change: the length of the training, which
    # a time budget shortens, and a factor, which a plateau lowers.
    total_steps: tf.Variable
    factor: tf.Variable

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """State to save in checkpoints."""

    def __call__(self, updates: tf.Tensor) -> tf.Tensor:
        """Return the learning rate after that many updates of the weights."""


class NoSchedule:
    """Stands for the schedule of an optimizer whose learning rate is left to itself."""

    def __init__(self, optimizer: keras.Optimizer) -> None:
        self._optimizer = optimizer
        self.total_steps = tf.Variable(0.0, trainable=False)
        self.factor = tf.Variable(1.0, trainable=False)
        self.variables: tuple[tf.Variable, ...] = ()

    def __call__(self, updates: tf.Tensor) -> tf.Tensor:
        """Return the optimizer's learning rate now, whatever the number of updates."""
        return self._optimizer.learning_rate


@dataclass(frozen=True)
class Parts:
    """What is trained, and how."""

    network: keras.Model
    objective: Objective
    optimizer: keras.Optimizer
    # The schedule inside the optimizer.
    schedule: Schedule
    # Averages of the weights, which are evaluated and saved instead of the weights.
    ema: ExponentialMovingAverage | None = None
    # Which blocks are trained from which epoch on; None: the same ones all the time.
    unfreezing: Unfreezing | None = None
    # Augments a batch of images in the training step, by what the inputs drew for each of them;
    # None: the inputs do it themselves.
    augment: Callable[[tf.Tensor, Any], tf.Tensor] | None = None
    # Features of a frozen base, which spare running it in every epoch.
    cached_features: CachedFeatures | None = None
    # Computed at each evaluation, beside the metrics of the objective.
    split_metric: SplitMetric | None = None
    # The highest learning rate, and that of the head if it has its own.
    learning_rate: float | None = None
    head_learning_rate: float | None = None

    def learning_rates(self) -> dict[str, float]:
        """Return the present learning rate, and that of the head if it has its own, by name."""
        rates = {"learning_rate": float(self.optimizer.learning_rate)}
        if self.learning_rate and self.head_learning_rate:
            factor = self.head_learning_rate / self.learning_rate
            rates["head_learning_rate"] = rates["learning_rate"] * factor
        return rates

    @property
    def validation_metrics(self) -> tuple[str, ...]:
        """Names of the metrics of an evaluation."""
        return (*self.objective.names, *([self.split_metric.name] if self.split_metric else ()))

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the network has its averaged weights, if there are any."""
        return self.ema.in_place() if self.ema else nullcontext()
