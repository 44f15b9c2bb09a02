"""Means of loss and metrics over a whole split."""

import itertools
from collections.abc import Callable

import keras
import tensorflow as tf

from library.inputs.interfaces import EvaluationBatches
from library.training.distribution import Devices
from library.training.parts import Objective
from library.training.steps import MetricSums, compute_scores


def make_evaluation_step(
    network: keras.Model,
    objective: Objective,
    totals: MetricSums,
    *,
    strategy: tf.distribute.Strategy | None = None,
    xla: bool = False,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return a compiled function of (images, labels) that adds to `totals`.

    Args:
        network: Takes images, returns scores.
        objective: Computes the metrics.
        totals: The sums of the metrics.
        strategy: The replicas, each of which takes its share of a batch; None: the current one.
        xla: Compile with XLA.

    Returns:
        A function whose result is the scores, float32 (batch, classes); with several replicas, one
        such result per replica.
    """
    strategy = strategy or tf.distribute.get_strategy()

    @tf.autograph.experimental.do_not_convert
    def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        scores = compute_scores(network, images, strategy.num_replicas_in_sync, training=False)
        totals.add(objective.metrics(labels, scores))
        return scores

    if xla:
        replica_step = tf.function(replica_step, jit_compile=True, reduce_retracing=True)

    @tf.function(reduce_retracing=True, autograph=False)
    def evaluation_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return strategy.run(replica_step, [images, labels])

    return evaluation_step


class Evaluator:
    """Evaluates one network, as often as asked; the step is compiled once."""

    def __init__(
        self,
        network: keras.Model,
        objective: Objective,
        devices: Devices | None = None,
        *,
        xla: bool = False,
    ) -> None:
        self._devices = devices or Devices()
        strategy = self._devices.strategy
        with strategy.scope():
            self._totals = MetricSums(objective.names)
        self._step = make_evaluation_step(
            network, objective, self._totals, strategy=strategy, xla=xla
        )

    def evaluate(
        self, inputs: EvaluationBatches, max_steps: int | None = None
    ) -> tuple[dict[str, float], int]:
        """Return each metric's mean over the examples, and the number of examples.

        Args:
            inputs: The split. Each example counts once, those of a partial last batch too.
            max_steps: Number of batches after which to stop; None: all.
        """
        self._totals.reset()
        batches = self._devices.divide(inputs.batches(), inputs.batch_size)
        for images, labels in itertools.islice(batches, max_steps):
            self._step(images, labels)
        return self._totals.means(), self._totals.examples
