"""Exponential moving averages of a network: what is evaluated and kept, not what is trained.

Averaged is all that a network computes with: the weights, and BatchNormalization's statistics too,
which belong to the weights that they were taken with. (Keras's own `use_ema` leaves those out, and
validation is far off until the training has nearly come to rest.)
"""

import contextlib

import numpy as np
import tensorflow as tf

from library.saving.checkpoints import ema_variables


class ExponentialMovingAverage:
    """The averages of a network's floating-point variables, with their own variables."""

    def __init__(self, network, decay):
        self._decay = decay
        self._network = network
        self._averages = [
            tf.Variable(
                tf.convert_to_tensor(each),
                trainable=False,
                # Every replica has the same weights, but statistics of its own.
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
                if each.trainable
                else tf.VariableAggregation.MEAN,
                name="average",
            )
            for each in self._followed()
        ]
        self._updates = tf.Variable(
            0.0,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="average_updates",
        )

    @property
    def variables(self):
        """State to keep in checkpoints."""
        return [*self._averages, self._updates]

    def update(self, is_update=True):
        """Take in the weights as they are after an update. Call it inside the compiled step.

        A step whose gradients were only added to others, or overflowed, is none: nothing changes.
        """
        # Young averages forget faster, or they would long remember where training began: the rule
        # of tf.train.ExponentialMovingAverage.
        updates = self._updates.assign_add(tf.cast(is_update, tf.float32))
        decay = tf.minimum(self._decay, (1.0 + updates) / (10.0 + updates))
        # No condition around it: with several replicas, TensorFlow can't assign within one.
        decay = tf.where(is_update, decay, 1.0)
        for average, variable in zip(self._averages, self._followed(), strict=True):
            value = tf.cast(tf.convert_to_tensor(variable), average.dtype)
            share = tf.cast(1.0 - decay, average.dtype)
            average.assign(average + share * (value - average))

    def in_place(self):
        """Within the block the network has its averages; afterwards its own variables again."""
        return holding(self._followed(), values_of(self._averages))

    def _followed(self):
        return ema_variables(self._network)


@contextlib.contextmanager
def holding(variables, values):
    """Within the block the variables hold other values; afterwards their own again."""
    own = values_of(variables)
    try:
        _assign(variables, values)
        yield
    finally:
        _assign(variables, own)


def values_of(variables):
    """Return the values of variables as NumPy arrays that stay as they are."""
    return [np.array(each.numpy()) for each in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
