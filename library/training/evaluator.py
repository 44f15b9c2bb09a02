"""Means of loss and metrics over a whole split."""

import itertools
from collections.abc import Callable

import keras
import tensorflow as tf

from library.inputs.interfaces import EvaluationBatches
from library.training.distribution import Devices
from library.training.parts import Objective
from library.training.steps import MetricSums, compute_scores


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
        """Make the compiled step.

        Args:
            network: Takes images (or cached features), returns scores.
            objective: Computes the metrics.
            devices: The replicas, each of which takes its share of a batch; None: one device.
            xla: Compile with XLA.
        """
        self._devices = devices or Devices()
        strategy = self._devices.strategy
        with strategy.scope():
            self._totals = MetricSums(objective.names)

        @tf.autograph.experimental.do_not_convert
        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> None:
            scores = compute_scores(network, images, strategy.num_replicas_in_sync, training=False)
            self._totals.add(objective.metrics(labels, scores))

        if xla:
            replica_step = tf.function(replica_step, jit_compile=True, reduce_retracing=True)

        @tf.function(reduce_retracing=True, autograph=False)
        def step(images: tf.Tensor, labels: tf.Tensor) -> None:
            strategy.run(replica_step, [images, labels])

        self._step = step

    def evaluate(
        self,
        inputs: EvaluationBatches,
        max_steps: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, float], int]:
        """Return each metric's mean over the examples, and the number of examples.

        Args:
            inputs: The split. Each example counts once, those of a partial last batch too.
            max_steps: Number of batches after which to stop; None: all.
            should_stop: Called after each batch; if it returns True, the means are of no use.
        """
        self._totals.reset()
        batches = self._devices.divide(inputs.batches(), inputs.batch_size)
        for images, labels in itertools.islice(batches, max_steps):
            self._step(images, labels)
            if should_stop():
                break
        return self._totals.means(), self._totals.examples
