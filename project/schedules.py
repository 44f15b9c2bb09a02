"""Learning-rate schedules by name: `--learning_rate_decay_type cosine`.

A schedule is a function of the progress of the training, in [0, 1], and of the epoch (float32
tensors of the same shape), with the hyperparameters that it needs as keyword-only arguments. To add
one, write it and put it in SCHEDULES.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from library.errors import SettingsError
from library.messages import choose
from project.hyperparameters import keywords_of


def fixed(progress: tf.Tensor, epoch: tf.Tensor, *, learning_rate: float) -> tf.Tensor:
    """Stay at learning_rate."""
    return learning_rate * tf.ones_like(progress)


def exponential(
    progress: tf.Tensor,
    epoch: tf.Tensor,
    *,
    learning_rate: float,
    learning_rate_decay_factor: float,
    num_epochs_per_decay: float,
) -> tf.Tensor:
    """Multiply by learning_rate_decay_factor after each num_epochs_per_decay epochs."""
    return learning_rate * learning_rate_decay_factor ** tf.floor(epoch / num_epochs_per_decay)


def polynomial(
    progress: tf.Tensor,
    epoch: tf.Tensor,
    *,
    learning_rate: float,
    end_learning_rate: float,
    learning_rate_decay_power: float,
) -> tf.Tensor:
    """Fall to end_learning_rate; along a straight line with power 1."""
    fall = learning_rate - end_learning_rate
    return end_learning_rate + fall * (1 - progress) ** learning_rate_decay_power


def step(
    progress: tf.Tensor,
    epoch: tf.Tensor,
    *,
    learning_rate: float,
    learning_rate_steps: Sequence[str],
) -> tf.Tensor:
    """Multiply by a factor from an epoch on: learning_rate_steps of `30=0.1` and `45=0.01`."""
    rate = learning_rate * tf.ones_like(progress)
    for start, factor in read_steps("learning_rate_steps", learning_rate_steps):
        rate = tf.where(epoch >= start, learning_rate * factor, rate)
    return rate


def cosine(
    progress: tf.Tensor, epoch: tf.Tensor, *, learning_rate: float, end_learning_rate: float
) -> tf.Tensor:
    """Fall along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    fall = learning_rate - end_learning_rate
    return end_learning_rate + fall * (1 + tf.cos(np.pi * progress)) / 2


def one_cycle(
    progress: tf.Tensor, epoch: tf.Tensor, *, learning_rate: float, end_learning_rate: float
) -> tf.Tensor:
    """Rise from 1/25 over 30 % of the training, then fall (Smith 2017, arXiv 1708.07120)."""
    low = learning_rate / 25
    rising = low + (learning_rate - low) * (1 - tf.cos(np.pi * progress / 0.3)) / 2
    fall = learning_rate - end_learning_rate
    falling = end_learning_rate + fall * (1 + tf.cos(np.pi * (progress - 0.3) / 0.7)) / 2
    return tf.where(progress < 0.3, rising, falling)


SCHEDULES: dict[str, Callable[..., tf.Tensor]] = {
    "fixed": fixed,
    "exponential": exponential,
    "polynomial": polynomial,
    "step": step,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule with a warm-up, a length that may change, and a factor.

    `total_steps` and `factor` are variables, so that a compiled step sees them change: a time
    budget changes the first, a plateau the second. Checkpoints save both.
    """

    def __init__(
        self,
        name: str,
        hyperparameters: Mapping[str, Any],
        *,
        total_steps: int,
        steps_per_epoch: int,
    ) -> None:
        """Make the schedule called `name`.

        Args:
            name: One of SCHEDULES.
            hyperparameters: The values of all hyperparameters.
            total_steps: Number of steps of the training.
            steps_per_epoch: Number of steps per epoch.
        """
        super().__init__()
        self._function = choose("learning_rate_decay_type", name, SCHEDULES)
        self._options = keywords_of(self._function, hyperparameters)
        self._steps_per_epoch = steps_per_epoch
        self._warmup_steps = round(hyperparameters["warmup_epochs"] * steps_per_epoch)
        self._planned_steps = float(total_steps)
        self.total_steps = tf.Variable(float(total_steps), trainable=False, name="total_steps")
        self.factor = tf.Variable(1.0, trainable=False, name="learning_rate_factor")

    @property
    def variables(self) -> list[tf.Variable]:
        """State to save in checkpoints."""
        return [self.total_steps, self.factor]

    def __call__(self, steps: Any) -> tf.Tensor:
        """Return the learning rate, float32, after some steps (any shape).

        Keras counts steps here, also where gradients of several make one update of the weights.
        """
        step = tf.cast(steps, tf.float32)
        warmup = float(self._warmup_steps)
        # The schedule begins after the warm-up.
        length = tf.maximum(self.total_steps - warmup, 1.0)
        progress = tf.clip_by_value((step - warmup) / length, 0.0, 1.0)
        # With a time budget, what is given in epochs moves with the end of the training. The
        # warm-up does not: right after a slow start few steps seem to fit, and it would be skipped.
        shortened = self.total_steps / self._planned_steps
        epoch = step / self._steps_per_epoch / shortened
        rate = self._function(progress, epoch, **self._options)
        risen = tf.minimum(step / warmup, 1.0) if warmup else 1.0
        return tf.cast(rate, tf.float32) * risen * self.factor

    def get_config(self) -> NoReturn:
        """Refuse: a schedule is made from the settings, never loaded from a file."""
        raise NotImplementedError("a learning-rate schedule is made from the settings")


def read_steps(setting: str, words: Sequence[str]) -> list[tuple[float, float]]:
    """Return the (epoch, factor) pairs, sorted, of a setting's words such as `30=0.1`.

    Raises SettingsError, naming the setting.
    """
    steps = []
    for word in words:
        epoch, _, factor = word.partition("=")
        try:
            steps.append((float(epoch), float(factor)))
        except ValueError:
            raise SettingsError(
                f"{setting}: {word!r} is not an epoch and a factor, such as 30=0.1"
            ) from None
    return sorted(steps)


def sketch(schedule: Callable[[Any], tf.Tensor], steps: float, columns: int = 60) -> str:
    """Return a schedule over that many steps as text: `0 ▁▄██▇▅▃▁ 0, at most 0.1`."""
    rates = schedule(np.linspace(0, steps, columns, dtype=np.float32)).numpy()
    heights = "▁▂▃▄▅▆▇█"
    levels = np.round(rates / max(rates.max(), 1e-30) * (len(heights) - 1)).astype(int)
    curve = "".join(heights[level] for level in levels)
    return f"{rates[0]:.2g} {curve} {rates[-1]:.2g}, at most {rates.max():.2g}"
