"""Means of loss and metrics over a whole split."""

import itertools

import tensorflow as tf

from library.training.distribution import Devices
from library.training.steps import MetricSums, _scores


def make_evaluation_step(network, objective, totals, *, strategy=None, xla=False):
    """Return a function of (images, labels) that adds to `totals`, and gives the scores.

    The scores are float32 (batch, classes); with several replicas, one such per replica.
    """
    strategy = strategy or tf.distribute.get_strategy()

    @tf.autograph.experimental.do_not_convert
    def replica_step(images, labels):
        scores = _scores(network, images, strategy.num_replicas_in_sync, training=False)
        totals.add(objective.metrics(labels, scores))
        return scores

    if xla:
        replica_step = tf.function(replica_step, jit_compile=True, reduce_retracing=True)

    @tf.function(reduce_retracing=True, autograph=False)
    def evaluation_step(images, labels):
        return strategy.run(replica_step, [images, labels])

    return evaluation_step


class Evaluator:
    """Measures one network, as often as asked; the step is compiled once."""

    def __init__(self, network, objective, devices=None, *, xla=False):
        strategy = (devices or Devices()).strategy
        with strategy.scope():
            self._totals = MetricSums(objective.names)
        self._step = make_evaluation_step(
            network, objective, self._totals, strategy=strategy, xla=xla
        )

    def evaluate(self, batches, max_steps=None):
        """Return (name → mean over every example of (images, labels) batches, number of examples).

        Each example counts once, those of a partial last batch too. With several replicas, batches
        are as Devices.divide gives them. `max_steps` stops earlier.
        """
        self._totals.reset()
        for images, labels in itertools.islice(batches, max_steps):
            self._step(images, labels)
        return self._totals.means(), self._totals.examples
