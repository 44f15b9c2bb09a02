"""The learning rate over a training, by name: `--learning_rate_decay_type cosine`.

A schedule is a function of how far the training is. To add one, write it and put it in SCHEDULES.
"""

import keras
import numpy as np
import tensorflow as tf

from library.errors import SettingsError
from library.messages import choose
from project.keywords import keywords_of


def fixed(progress, epoch, *, learning_rate):
    """Stay at learning_rate."""
    return learning_rate * tf.ones_like(progress)


def exponential(
    progress, epoch, *, learning_rate, learning_rate_decay_factor, num_epochs_per_decay
):
    """Multiply by learning_rate_decay_factor after each num_epochs_per_decay epochs."""
    return learning_rate * learning_rate_decay_factor ** tf.floor(epoch / num_epochs_per_decay)


def polynomial(progress, epoch, *, learning_rate, end_learning_rate, learning_rate_decay_power):
    """Fall to end_learning_rate; along a straight line with power 1."""
    fall = learning_rate - end_learning_rate
    return end_learning_rate + fall * (1 - progress) ** learning_rate_decay_power


def step(progress, epoch, *, learning_rate, learning_rate_steps):
    """Multiply by a factor from an epoch on: learning_rate_steps of `30=0.1` and `45=0.01`."""
    rate = learning_rate * tf.ones_like(progress)
    for start, factor in read_steps(learning_rate_steps):
        rate = tf.where(epoch >= start, learning_rate * factor, rate)
    return rate


def cosine(progress, epoch, *, learning_rate, end_learning_rate):
    """Fall along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983)."""
    fall = learning_rate - end_learning_rate
    return end_learning_rate + fall * (1 + tf.cos(np.pi * progress)) / 2


def one_cycle(progress, epoch, *, learning_rate, end_learning_rate):
    """Rise from a 25th over 30 % of the training, then fall (Smith 2017, arXiv 1708.07120)."""
    low = learning_rate / 25
    rising = low + (learning_rate - low) * (1 - tf.cos(np.pi * progress / 0.3)) / 2
    fall = learning_rate - end_learning_rate
    falling = end_learning_rate + fall * (1 + tf.cos(np.pi * (progress - 0.3) / 0.7)) / 2
    return tf.where(progress < 0.3, rising, falling)


SCHEDULES = {
    "fixed": fixed,
    "exponential": exponential,
    "polynomial": polynomial,
    "step": step,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate at a step, with warm-up, a length that may change, and a factor.

    `total_steps` and `factor` are variables, so that a compiled step sees them change: the first
    when a training must fit a time, the second when a plateau is reached. Both are state that a
    checkpoint keeps.
    """

    def __init__(self, name, hyperparameters, *, total_steps, steps_per_epoch):
        super().__init__()
        self._function = choose("learning_rate_decay_type", name, SCHEDULES)
        self._options = keywords_of(self._function, hyperparameters)
        self._steps_per_epoch = steps_per_epoch
        self._warmup_steps = round(hyperparameters["warmup_epochs"] * steps_per_epoch)
        self._steps_per_update = hyperparameters["gradient_accumulation_steps"]
        self._planned_steps = float(total_steps)
        self.total_steps = tf.Variable(float(total_steps), trainable=False, name="total_steps")
        self.factor = tf.Variable(1.0, trainable=False, name="learning_rate_factor")

    @property
    def updates(self):
        """How many updates of the weights there will be."""
        return float(self.total_steps) / self._steps_per_update

    @property
    def variables(self):
        """State to keep in checkpoints."""
        return [self.total_steps, self.factor]

    def __call__(self, updates):
        """Return the learning rate, float32, after so many updates of the weights (any shape)."""
        # Several steps make one update where gradients are accumulated.
        step = tf.cast(updates, tf.float32) * self._steps_per_update
        warmup = float(self._warmup_steps)
        # The course begins where the warm-up ends.
        length = tf.maximum(self.total_steps - warmup, 1.0)
        progress = tf.clip_by_value((step - warmup) / length, 0.0, 1.0)
        # Where a training must fit a time, what is told in epochs moves with its end. The warm-up
        # stays: right after a slow start few steps seem to fit, and it would be passed over.
        shortened = self.total_steps / self._planned_steps
        epoch = step / self._steps_per_epoch / shortened
        rate = self._function(progress, epoch, **self._options)
        risen = tf.minimum(step / warmup, 1.0) if warmup else 1.0
        return tf.cast(rate, tf.float32) * risen * self.factor

    def get_config(self):
        """Refuse: a schedule is made anew from the settings, never read from a file."""
        raise NotImplementedError("a learning rate is made from the settings")


def read_steps(words):
    """Turn `30=0.1, 45=0.01` into [(30.0, 0.1), (45.0, 0.01)], ordered. Raises SettingsError."""
    steps = []
    for word in words:
        epoch, _, factor = word.partition("=")
        try:
            steps.append((float(epoch), float(factor)))
        except ValueError:
            raise SettingsError(
                f"learning_rate_steps: {word!r} is not an epoch and a factor, such as 30=0.1"
            ) from None
    return sorted(steps)


def sketch(learning_rate, updates, columns=60):
    """Return one line that shows the course over so many updates: `0 ▁▄██▇▅▃▁ 0, at most 0.1`."""
    rates = learning_rate(np.linspace(0, updates, columns, dtype=np.float32)).numpy()
    heights = "▁▂▃▄▅▆▇█"
    levels = np.round(rates / max(rates.max(), 1e-30) * (len(heights) - 1)).astype(int)
    course = "".join(heights[level] for level in levels)
    return f"{rates[0]:.2g} {course} {rates[-1]:.2g}, at most {rates.max():.2g}"
