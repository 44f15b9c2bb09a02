"""Exponential moving averages of a network: evaluated and saved instead of the trained weights.

All floating-point variables are averaged: the weights, and BatchNormalization's statistics too,
because they belong to the weights that they were computed with. (Keras's own `use_ema` omits the
statistics, so validation is far off until the training has nearly converged.)
"""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from library.saving.checkpoints import ema_variables


class ExponentialMovingAverage:
    """The averages of a network's floating-point variables, in variables of their own."""

    def __init__(self, network: keras.Model, decay: float) -> None:
        self._decay = decay
        self._network = network
        # Every replica computes the same.
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self._averages = [
            tf.Variable(
                tf.convert_to_tensor(each),
                trainable=False,
                aggregation=first,
                name="average",
            )
            for each in ema_variables(network)
        ]
        self._updates = tf.Variable(0.0, trainable=False, aggregation=first, name="average_updates")

    @property
    def variables(self) -> list[tf.Variable]:
        """State to save in checkpoints; the last one counts the updates."""
        return [*self._averages, self._updates]

    def update(self, is_update: tf.Tensor | bool = True) -> None:
        """Average in the weights as they are now; to be called inside the compiled step.

        Args:
            is_update: Whether the step changed the weights. If its gradients were only accumulated,
                or overflowed, the averages stay as they are.
        """
        # Young averages forget faster, or they would long remember where training began: the rule
        # of tf.train.ExponentialMovingAverage.
        updates = self._updates.assign_add(tf.cast(is_update, tf.float32))
        decay = tf.minimum(self._decay, (1.0 + updates) / (10.0 + updates))
        # No condition around it: with several replicas, TensorFlow can't assign within one.
        decay = tf.where(is_update, decay, 1.0)
        for average, variable in zip(self._averages, ema_variables(self._network), strict=True):
            value = tf.cast(tf.convert_to_tensor(variable), average.dtype)
            share = tf.cast(1.0 - decay, average.dtype)
            average.assign(average + share * (value - average))

    def in_place(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the network has its averages instead of its own values."""
        return temporary_values(ema_variables(self._network), values_of(self._averages))


@contextlib.contextmanager
def temporary_values(
    variables: Sequence[tf.Variable], values: Sequence[np.ndarray]
) -> Iterator[None]:
    """Assign values to the variables within the block, and their own again afterwards."""
    own = values_of(variables)
    try:
        _assign(variables, values)
        yield
    finally:
        _assign(variables, own)


def values_of(variables: Sequence[tf.Variable]) -> list[np.ndarray]:
    """Return copies of the values of variables."""
    return [np.array(each.numpy()) for each in variables]


def _assign(variables: Sequence[tf.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
