"""Optimization steps and evaluation steps, compiled, and the sums that they add to."""

import keras
import tensorflow as tf


class MetricSums:
    """Sums of per-example measures over many batches, kept on the devices.

    Summing there, and reading rarely, keeps the host from waiting for each step.
    """

    def __init__(self, names):
        self.names = tuple(names)
        # float64: float32 would stop counting at 16,777,216 images. Each replica adds to a sum of
        # its own; reading gives the sum over replicas.
        self.variables = [
            tf.Variable(
                0.0,
                dtype=tf.float64,
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
                name=f"total_{name}",
            )
            for name in (*self.names, "examples")
        ]
        # Compiled, as Devices.read in library/training/distribution.py is.
        self._sums = tf.function(lambda: [each.read_value() for each in self.variables])

    def add(self, measures):
        """Add measures: name → float32 (batch,)."""
        for name, variable in zip(self.names, self.variables, strict=False):
            variable.assign_add(tf.reduce_sum(tf.cast(measures[name], tf.float64)))
        self.variables[-1].assign_add(tf.cast(tf.size(measures[self.names[0]]), tf.float64))

    def reset(self):
        """Start again from nothing."""
        for variable in self.variables:
            variable.assign(0.0)

    @property
    def examples(self):
        """How many examples were added."""
        return round(float(self._sums()[-1]))

    def means(self):
        """Return name → mean over the examples added; NaN where there were none."""
        *sums, examples = map(float, self._sums())
        return {
            name: each / examples if examples else float("nan")
            for name, each in zip(self.names, sums, strict=True)
        }


def make_replica_step(network, objective, optimizer, totals, replicas, *, averages=None, xla=False):
    """Return a function of (images, labels, batch_size) that makes one optimization step.

    It is what each of the replicas does with its share of a batch; `batch_size`, a float32 scalar,
    counts the examples of all shares. Returns this share's part of the loss, float32.
    """

    # As in Keras's fit: what is traced is plain TensorFlow, and the first step comes sooner.
    @tf.autograph.experimental.do_not_convert
    def replica_step(images, labels, batch_size):
        statistics = _statistics(network) if replicas > 1 else ()
        with tf.GradientTape() as tape:
            scores = _scores(network, images, replicas, training=True)
            # Over the global batch, whichever share of it this replica got.
            losses = objective.training_losses(labels, scores)
            loss = tf.reduce_sum(losses) / batch_size + objective.penalty(network) / replicas
            scaled = optimizer.scale_loss(loss)
        for variable, before in statistics:
            variable.assign(tf.where(tf.shape(labels)[0] > 0, variable, before))
        weights = network.trainable_variables
        before = tf.identity(optimizer.iterations) if averages else None
        optimizer.apply(_reduced(tape.gradient(scaled, weights), replicas), weights)
        if averages:
            averages.update(optimizer.iterations > before)
        totals.add(objective.metrics(labels, scores))
        return loss

    if xla:
        replica_step = tf.function(replica_step, jit_compile=True, reduce_retracing=True)

    return replica_step


def make_train_steps(
    network,
    objective,
    optimizer,
    totals,
    *,
    averages=None,
    strategy=None,
    xla=False,
    steps_per_execution=1,
):
    """Return a function of (iterator, count) that makes `count` optimization steps.

    The iterator gives (images, labels): uint8 (batch, height, width, channels), and int64 (batch,)
    or, where labels are mixed, float32 (batch, classes). `count` is usually `steps_per_execution`.
    Returns the losses that were minimized, float32 (count,), penalties included, and the seconds
    waited for the iterator, float64; adds to `totals`. `averages` (or None) follow the weights.
    `xla` compiles the whole step.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync

    replica_step = make_replica_step(
        network, objective, optimizer, totals, replicas, averages=averages, xla=xla
    )

    @tf.autograph.experimental.do_not_convert
    def step(iterator):
        before = tf.timestamp()
        with tf.control_dependencies([before]):
            images, labels = next(iterator)
        with tf.control_dependencies(strategy.experimental_local_results(labels)):
            waited = tf.timestamp() - before
        sizes = strategy.run(lambda each: tf.cast(tf.shape(each)[0], tf.float32), [labels])
        batch_size = strategy.reduce("SUM", sizes, axis=None)
        replica_losses = strategy.run(replica_step, [images, labels, batch_size])
        return strategy.reduce("SUM", replica_losses, axis=None), waited

    # Traced without a loop around it, the first step comes sooner.
    @tf.function(reduce_retracing=True, autograph=False)
    def one_step(iterator):
        loss, waited = step(iterator)
        return tf.reshape(loss, [1]), waited

    @tf.function(reduce_retracing=True, autograph=False)
    def several_steps(iterator, count):
        def one_more(number, losses, waited):
            loss, seconds = step(iterator)
            return number + 1, losses.write(number, loss), waited + seconds

        losses = tf.TensorArray(tf.float32, size=count, element_shape=[])
        state = (tf.constant(0), losses, tf.constant(0.0, tf.float64))
        _, losses, waited = tf.while_loop(lambda number, *_: number < count, one_more, state)
        return losses.stack(), waited

    def train_steps(iterator, count):
        if count == steps_per_execution == 1:
            return one_step(iterator)
        return several_steps(iterator, tf.constant(count))

    return train_steps


def unwrap_optimizer(optimizer):
    """Return the optimizer inside a LossScaleOptimizer (used with float16), or the optimizer."""
    is_wrapper = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if is_wrapper else optimizer


def accumulated_steps(optimizer):
    """Return how many steps make one update of the weights with a Keras optimizer."""
    return unwrap_optimizer(optimizer).gradient_accumulation_steps or 1


def learning_rate_at(optimizer, learning_rate, made, step):
    """Return the learning rate that `step` had, when `made` steps are made.

    `learning_rate` is a function of the number of updates, or what stands for another course.
    """
    if not callable(learning_rate):
        return float(optimizer.learning_rate)
    together = accumulated_steps(optimizer)
    # Counted from now on back: where a scaled loss overflowed, a step made no update.
    ago = made // together - (step - 1) // together
    updates = tf.convert_to_tensor(optimizer.iterations)
    return float(learning_rate(tf.maximum(updates - ago, 0)))


def _scores(network, images, replicas, training):
    """Return the network's scores of a batch, which may be empty where it is one of several shares.

    An epoch's last batch may be too small for all replicas, and not every operation takes a batch
    of none: such a replica looks at a blank image, and then away from it.
    """
    images = tf.cast(images, tf.float32)
    if replicas == 1:
        return network(images, training=training)
    count = tf.shape(images)[0]
    blank = tf.zeros([tf.cast(tf.equal(count, 0), tf.int32), *images.shape[1:]])
    return network(tf.concat([images, blank], 0), training=training)[:count]


def _statistics(network):
    """Give (variable, its value now) of what a network learns from images by other means."""
    variables = [each for each in network.non_trainable_variables if "float" in each.dtype]
    return [(each, tf.identity(each)) for each in variables]


def _reduced(gradients, replicas):
    """Return gradients summed over replicas, so that clipping sees them whole."""
    if replicas == 1:
        return gradients
    summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
    # Keras will add up what each replica passes, which is the same everywhere by now.
    return [each / replicas for each in summed]
