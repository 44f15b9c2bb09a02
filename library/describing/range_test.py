"""A learning-rate range test: the loss while the learning rate rises from step to step.

Smith 2015 (arXiv 1506.01186), with the exponential rise, the smoothing and the end of fastai's
`lr_find`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from library.errors import DivergedError
from library.figures.training_curves import INK, draw_figure
from library.logging import progress_bar
from library.training.steps import make_train_steps, steps_per_update, unwrap_optimizer
from library.training.trainer import Trainer

LOWEST, HIGHEST, UPDATES = 1e-7, 10.0, 120
# The weight of what came before in the smoothed loss.
_SMOOTHING = 0.95
# The test ends when the smoothed loss is so many times its lowest value.
_DIVERGED = 4.0
# The first losses are still those of the initial weights, the last ones those of divergence.
_SKIPPED_START, _SKIPPED_END = 10, 5


class RisingRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is multiplied by the same factor at each update of the weights."""

    def __init__(self, steps_per_update: int) -> None:
        super().__init__()
        self._steps_per_update = steps_per_update

    def __call__(self, steps: Any) -> tf.Tensor:
        """Return the learning rate, float32, after some steps."""
        # Keras's optimizers pass the steps, not the updates, if they accumulate gradients.
        share = tf.cast(steps // self._steps_per_update, tf.float32) / (UPDATES - 1)
        return LOWEST * (HIGHEST / LOWEST) ** share

    def get_config(self) -> NoReturn:
        """Refuse: it is never loaded from a file."""
        raise NotImplementedError


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes:
        rates: The learning rates, rising, float (updates,).
        losses: The training loss of each, float (updates,).
    """

    rates: np.ndarray
    losses: np.ndarray

    @property
    def smoothed(self) -> np.ndarray:
        """The losses as exponential moving averages, without bias to the first."""
        averages, average = [], 0.0
        for number, loss in enumerate(self.losses, 1):
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            averages.append(average / (1 - _SMOOTHING**number))
        return np.array(averages)

    @property
    def lowest(self) -> float:
        """The learning rate at which the smoothed loss was lowest."""
        return float(self.rates[np.argmin(self.smoothed)])

    @property
    def steepest(self) -> float:
        """The learning rate at which the smoothed loss fell fastest."""
        lowest = int(np.argmin(self.smoothed))
        end = max(lowest + 1, _SKIPPED_START + 2)
        slopes = np.gradient(self.smoothed[:end])
        return float(self.rates[_SKIPPED_START + np.argmin(slopes[_SKIPPED_START:])])

    @property
    def suggested(self) -> float:
        """A tenth of the learning rate with the lowest loss: beyond that one training diverges."""
        return self.lowest / 10

    def draw(self) -> bytes:
        """Return the curve as an SVG."""

        def draw(axes: Any, name: str) -> None:
            axes.plot(self.rates, self.losses, color=INK, alpha=0.35, label="loss")
            axes.plot(self.rates, self.smoothed, color="#4c8bf5", label="smoothed")
            marks = ((self.suggested, "suggested", "-"), (self.steepest, "steepest descent", ":"))
            for rate, what, line in marks:
                axes.axvline(rate, color="#f0803c", linestyle=line, label=f"{what}: {rate:.1e}")
            axes.set_xscale("log")
            top = float(
                self.smoothed[0] + 0.5 * np.ptp(self.smoothed[: np.argmin(self.smoothed) + 1])
            )
            axes.set_ylim(top=max(top, float(self.smoothed[0]) * 1.05))
            axes.set_title(name, color=INK)

        return draw_figure(("training loss",), (7, 4), draw, xlabel="learning rate")


def find_learning_rate(trainer: Trainer) -> RangeTest:
    """Train with a rising learning rate until the loss diverges; write nothing but caches.

    Args:
        trainer: A run that is not started. Its network is of no use afterwards.

    Raises:
        DivergedError: The loss is not finite almost from the start.
    """
    parts, plan = trainer.parts, trainer.plan
    if parts.unfreezing:
        parts.unfreezing.apply(0)
    if parts.cached_features:
        trainer.step_inputs = parts.cached_features.make_inputs()
    count = steps_per_update(parts.optimizer)
    unwrap_optimizer(parts.optimizer).learning_rate = RisingRate(count)
    train_steps = make_train_steps(
        trainer.step_parts, trainer.totals, strategy=trainer.devices.strategy, xla=plan.xla
    )
    rates, losses, lowest = [], [], np.inf
    batches = _endless_batches(trainer)
    with progress_bar(UPDATES, "range test", unit=" updates") as bar:
        for _ in range(UPDATES):
            rates.append(float(parts.optimizer.learning_rate))
            steps = [float(train_steps(next(batches), 1)[0][0]) for _ in range(count)]
            losses.append(float(np.mean(steps)))
            found = RangeTest(np.array(rates), np.array(losses))
            if not np.isfinite(losses[-1]):
                break
            bar.update()
            smoothed = found.smoothed[-1]
            lowest = min(lowest, smoothed)
            if smoothed > _DIVERGED * lowest:
                break
    sound = np.isfinite(found.losses)
    if np.sum(sound) < _SKIPPED_START + 2:
        raise DivergedError(
            f"the loss is {losses[-1]} at learning rate {rates[-1]:.1e} already: check a batch "
            "(python run.py preview), the labels and the network"
        )
    return RangeTest(found.rates[sound], found.losses[sound])


def _endless_batches(trainer: Trainer) -> Iterator[Any]:
    """Yield, for each step, the iterator that its batch comes from, epoch after epoch."""
    training = trainer.step_inputs.training
    for epoch in itertools.count():
        batches = iter(
            trainer.devices.divide(training.batches(epoch), trainer.inputs.training.batch_size)
        )
        yield from itertools.repeat(batches, trainer.inputs.training.batches_per_epoch)
