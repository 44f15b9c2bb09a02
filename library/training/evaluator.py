"""Means of loss and metrics over a whole split, and metrics that are not means."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from library.inputs.interfaces import EvaluationBatches
from library.training.distribution import Devices
from library.training.parts import Objective, SplitMetric
from library.training.steps import MetricSums, compute_scores


class Evaluator:
    """Evaluates one network, as often as asked; the step is compiled once."""

    def __init__(
        self,
        network: keras.Model,
        objective: Objective,
        devices: Devices | None = None,
        *,
        split_metric: SplitMetric | None = None,
        xla: bool = False,
    ) -> None:
        """Make the compiled step.

        Args:
            network: Takes images (or cached features), returns scores.
            objective: Computes the metrics.
            devices: The replicas, each of which takes its share of a batch; None: one device.
            split_metric: A metric of the scores of all examples; None: no other metric.
            xla: Compile with XLA.
        """
        self._devices, self._split_metric = devices or Devices(), split_metric
        strategy = self._devices.strategy
        with strategy.scope():
            self._totals = MetricSums(objective.names)

        @tf.autograph.experimental.do_not_convert
        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor | None:
            scores = compute_scores(network, images, strategy.num_replicas_in_sync, training=False)
            self._totals.add(objective.metrics(labels, scores))
            return scores if split_metric else None

        if xla:
            replica_step = tf.function(replica_step, jit_compile=True, reduce_retracing=True)

        @tf.function(reduce_retracing=True, autograph=False)
        def step(images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
            outputs = [labels, strategy.run(replica_step, [images, labels])]
            if split_metric is None:
                return []
            if self._devices.replicas == 1:
                return outputs
            # The examples of all replicas, on every worker: each one once, whatever its share.
            return [strategy.gather(each, axis=0) for each in outputs]

        self._step = step

    def evaluate(
        self,
        inputs: EvaluationBatches,
        max_steps: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, float], int]:
        """Return each metric over the examples, and the number of examples.

        Args:
            inputs: The split. Each example counts once, those of a partial last batch too.
            max_steps: Number of batches after which to stop; None: all.
            should_stop: Called after each batch; if it returns True, the metrics are of no use.
        """
        self._totals.reset()
        batches = self._devices.divide(inputs.batches(), inputs.batch_size)
        outputs = self._run(itertools.islice(batches, max_steps), should_stop)
        others = {}
        if self._split_metric:
            others[self._split_metric.name] = self._split_metric.compute(outputs)
        for _ in outputs:  # no metric wants them
            pass
        return {**self._totals.means(), **others}, self._totals.examples

    def _run(
        self, batches: Iterable[Any], should_stop: Callable[[], bool]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Evaluate all batches. Yield (labels, scores) of each if a metric wants them."""
        for images, labels in batches:
            outputs = self._step(images, labels)
            if should_stop():
                return
            if outputs:
                labels, scores = outputs
                yield labels.numpy(), scores.numpy()
