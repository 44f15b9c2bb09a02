"""Optimization steps, compiled, and the sums of metrics that they add to."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from library.training.parts import Parts


class MetricSums:
    """Sums of per-example metrics over many batches, held on the devices.

    Summing there, and reading rarely, keeps the host from waiting for each step.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        # float64: float32 would stop counting at 16,777,216 images. Each replica has a copy.
        self.variables = [
            tf.Variable(
                0.0,
                dtype=tf.float64,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name=f"total_{name}",
            )
            for name in (*self.names, "examples")
        ]

    def add(self, metrics: Mapping[str, tf.Tensor]) -> None:
        """Add the metrics of a batch, or of a replica's share of it: name → float32 (batch,)."""
        sums = [tf.reduce_sum(tf.cast(metrics[name], tf.float64)) for name in self.names]
        sums.append(tf.cast(tf.size(metrics[self.names[0]]), tf.float64))
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:
            # Now and not when they are read: a sum of sums would round otherwise after resuming
            # from a checkpoint, which holds only their total.
            sums = replicas.all_reduce("SUM", sums)
        for variable, each in zip(self.variables, sums, strict=True):
            variable.assign_add(each)

    def reset(self) -> None:
        """Set all sums to zero."""
        for variable in self.variables:
            variable.assign(0.0)

    @property
    def examples(self) -> int:
        """Number of examples added."""
        return round(float(self.variables[-1].numpy()))

    def means(self) -> dict[str, float]:
        """Return each metric's mean over the examples added; NaN without any."""
        *sums, examples = (float(each.numpy()) for each in self.variables)
        return {
            name: each / examples if examples else float("nan")
            for name, each in zip(self.names, sums, strict=True)
        }


def make_replica_step(
    parts: Parts, totals: MetricSums, replicas: int, *, xla: bool = False
) -> Callable[..., tf.Tensor]:
    """Return a function that makes one optimization step on one replica's share of a batch.

    Args:
        parts: What is trained.
        totals: The sums that the metrics are added to.
        replicas: Number of replicas that make the step together.
        xla: Compile the whole step with XLA.

    Returns:
        A function of (images, labels, batch_size) and, if parts.augment is given, what the inputs
        drew. `batch_size`, a float32 scalar, counts the examples of all replicas. It returns the
        share's part of the loss, a float32 scalar.
    """
    network, objective, optimizer, ema = parts.network, parts.objective, parts.optimizer, parts.ema

    # As in Keras's fit: what is traced is plain TensorFlow, and the first step comes sooner.
    @tf.autograph.experimental.do_not_convert
    def replica_step(images: tf.Tensor, labels: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
        statistics = _statistics(network) if replicas > 1 else []
        with tf.GradientTape() as tape:
            scores = compute_scores(network, images, replicas, training=True)
            # Divided by the global batch size, whichever share of it this replica got.
            losses = objective.training_losses(labels, scores)
            loss = tf.reduce_sum(losses) / batch_size + objective.penalty(network) / replicas
            scaled = optimizer.scale_loss(loss)
        weights = network.trainable_variables
        gradients = tape.gradient(scaled, weights)
        if replicas > 1:
            gradients = _synchronize(gradients, statistics, tf.shape(labels)[0] > 0)
        updates_before = tf.identity(optimizer.iterations) if ema else None
        optimizer.apply(gradients, weights)
        if ema:
            ema.update(optimizer.iterations > updates_before)
        totals.add(objective.metrics(labels, scores))
        return loss

    if xla:
        replica_step = tf.function(replica_step, jit_compile=True, reduce_retracing=True)

    if not (augment := parts.augment):
        return replica_step

    # Outside of what XLA compiles, which has no op that moves pixels.
    @tf.autograph.experimental.do_not_convert
    def augmented_step(
        images: tf.Tensor, labels: tf.Tensor, batch_size: tf.Tensor, drawn: Any
    ) -> tf.Tensor:
        return replica_step(augment(images, drawn), labels, batch_size)

    return augmented_step


def make_train_steps(
    parts: Parts,
    totals: MetricSums,
    *,
    strategy: tf.distribute.Strategy | None = None,
    xla: bool = False,
    steps_per_execution: int | None = 1,
) -> Callable[[Iterator, int], tuple[tf.Tensor, tf.Tensor]]:
    """Return a compiled function of (iterator, count) that makes `count` optimization steps.

    Args:
        parts: What is trained.
        totals: The sums that the metrics are added to.
        strategy: The replicas that train together; None: the current strategy.
        xla: Compile the whole step with XLA.
        steps_per_execution: The usual `count`; None: take each batch before its step is called, so
            that nothing has changed if there is none.

    Returns:
        A function. Its iterator yields (images, labels): uint8 (batch, height, width, channels),
        and int64 (batch,) or, if labels are mixed, float32 (batch, classes). It returns the losses
        that were minimized, penalties included, float32 (count,), and the seconds spent waiting for
        the iterator, a float64 scalar.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replica_step = make_replica_step(parts, totals, strategy.num_replicas_in_sync, xla=xla)

    @tf.autograph.experimental.do_not_convert
    def step(iterator: Iterator) -> tuple[tf.Tensor, tf.Tensor]:
        before = tf.timestamp()
        with tf.control_dependencies([before]):
            images, labels, *drawn = next(iterator)
        with tf.control_dependencies(strategy.experimental_local_results(labels)):
            input_wait = tf.timestamp() - before
        sizes = strategy.run(lambda each: tf.cast(tf.shape(each)[0], tf.float32), [labels])
        batch_size = strategy.reduce("SUM", sizes, axis=None)
        replica_losses = strategy.run(replica_step, [images, labels, batch_size, *drawn])
        return strategy.reduce("SUM", replica_losses, axis=None), input_wait

    if steps_per_execution is None:
        return _make_fed_steps(step)

    # Traced without a loop around it, the first step comes sooner.
    @tf.function(reduce_retracing=True, autograph=False)
    def one_step(iterator: Iterator) -> tuple[tf.Tensor, tf.Tensor]:
        loss, input_wait = step(iterator)
        return tf.reshape(loss, [1]), input_wait

    @tf.function(reduce_retracing=True, autograph=False)
    def many_steps(iterator: Iterator, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def one_more(
            number: tf.Tensor, losses: tf.TensorArray, input_wait: tf.Tensor
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.Tensor]:
            loss, seconds = step(iterator)
            return number + 1, losses.write(number, loss), input_wait + seconds

        losses = tf.TensorArray(tf.float32, size=count, element_shape=[])
        state = (tf.constant(0), losses, tf.constant(0.0, tf.float64))
        _, losses, input_wait = tf.while_loop(lambda number, *_: number < count, one_more, state)
        return losses.stack(), input_wait

    def train_steps(iterator: Iterator, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        if count == steps_per_execution == 1:
            return one_step(iterator)
        return many_steps(iterator, tf.constant(count))

    return train_steps


def _make_fed_steps(
    step: Callable[[Iterator], tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[Iterator, int], tuple[tf.Tensor, tf.Tensor]]:
    """Return what `make_train_steps` does, with the iterator outside of what is compiled.

    Inside, an op that does not need the batch, such as one that counts steps, may run although
    there is none.
    """
    compiled: Any = None

    def train_steps(iterator: Any, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        nonlocal compiled
        if compiled is None:
            compiled = tf.function(
                lambda batch: step(iter([batch]))[0],
                input_signature=[iterator.element_spec],
                autograph=False,
            )
        losses, input_wait = [], 0.0
        for _ in range(count):
            before = time.perf_counter()
            batch = next(iterator)
            input_wait += time.perf_counter() - before
            losses.append(compiled(batch))
        return tf.stack(losses), tf.constant(input_wait, tf.float64)

    return train_steps


def unwrap_optimizer(optimizer: keras.Optimizer) -> keras.Optimizer:
    """Return the optimizer inside a LossScaleOptimizer (used with float16), or the optimizer."""
    is_wrapper = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if is_wrapper else optimizer


def steps_per_update(optimizer: keras.Optimizer) -> int:
    """Return how many steps make one update of the weights, by accumulating gradients."""
    return unwrap_optimizer(optimizer).gradient_accumulation_steps or 1


def learning_rate_at(parts: Parts, steps_made: int, step: int) -> float:
    """Return the learning rate that an earlier step had.

    Args:
        parts: What is trained; the optimizer counts the updates.
        steps_made: Number of steps made by now.
        step: The number of the step in question, from 1 to `steps_made`.
    """
    accumulated = steps_per_update(parts.optimizer)
    # Counted back from now, because a step whose scaled loss overflowed made no update.
    updates_ago = steps_made // accumulated - (step - 1) // accumulated
    update = tf.maximum(tf.convert_to_tensor(parts.optimizer.iterations) - updates_ago, 0)
    # The schedule is asked at the last step of an update.
    return float(parts.schedule((update + 1) * accumulated - 1))


def compute_scores(
    network: keras.Model, images: tf.Tensor, replicas: int, training: bool
) -> tf.Tensor:
    """Return the network's scores, float32 (batch, classes), of one replica's share of a batch.

    An epoch's last batch may be too small for all replicas. A replica with an empty share runs the
    network on one blank image and drops the result, because some ops reject empty batches.

    Args:
        network: Takes float32 images.
        images: uint8 or float32 (batch, height, width, channels).
        replicas: Number of replicas that share the batch.
        training: Whether to run in training mode.
    """
    images = tf.cast(images, tf.float32)
    if replicas == 1:
        return network(images, training=training)
    count = tf.shape(images)[0]
    blank = tf.zeros([tf.cast(tf.equal(count, 0), tf.int32), *images.shape[1:]])
    return network(tf.concat([images, blank], 0), training=training)[:count]


def _statistics(network: keras.Model) -> list[tuple[keras.Variable, tf.Tensor]]:
    """Return what a step changes without gradients: (variable, its value before the step)."""
    # Not the frozen weights, of which there may be many: their layers list them as trainable.
    layers = [each for each in network._flatten_layers() if each.trainable]
    variables = [v for each in layers for v in each._non_trainable_variables if "float" in v.dtype]
    return [(each, tf.identity(each)) for each in variables]


def _synchronize(
    gradients: list[tf.Tensor],
    statistics: Sequence[tuple[keras.Variable, tf.Tensor]],
    has_share: tf.Tensor,
) -> list[tf.Tensor]:
    """Sum gradients over the replicas, and average BatchNormalization's running statistics.

    They are averaged in every step, so that all replicas have the same: a checkpoint then holds
    all of the state, and a run that resumes from it continues to the same bits.

    Args:
        gradients: This replica's.
        statistics: (variable, its value before the step).
        has_share: Scalar: whether this replica had images. If not, its own new statistics are those
            of a blank image, and the old ones count instead.

    Returns:
        The gradients to apply. They are summed before that, so that clipping sees them whole.
    """
    replicas = tf.distribute.get_replica_context()
    updated = [tf.where(has_share, variable, before) for variable, before in statistics]
    summed = replicas.all_reduce("SUM", gradients + updated)
    # Keras adds up what each replica passes, which is the same everywhere by now.
    count = replicas.num_replicas_in_sync
    means = [each / count for each in summed]
    for (variable, _), mean in zip(statistics, means[len(gradients) :], strict=True):
        variable.assign(mean)
    return means[: len(gradients)]
