"""One optimisation step and one evaluation step, compiled, and the sums that they add to."""

import tensorflow as tf


class Totals:
    """Sums of per-example measures over many batches, kept on the device.

    Summing there, and reading rarely, keeps the host from waiting for each step.
    """

    def __init__(self, names):
        # float64: float32 would stop counting at 16,777,216 images.
        self._sums = {name: tf.Variable(0.0, dtype=tf.float64) for name in names}
        self._examples = tf.Variable(0, dtype=tf.int64)

    @property
    def variables(self):
        """All state, for checkpoints."""
        return [*self._sums.values(), self._examples]

    def add(self, measures):
        """Add measures: name → float32 (batch,)."""
        for name, values in measures.items():
            self._sums[name].assign_add(tf.reduce_sum(tf.cast(values, tf.float64)))
        self._examples.assign_add(tf.size(values, tf.int64))

    def reset(self):
        """Start again from nothing."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))

    @property
    def examples(self):
        """How many examples were added."""
        return int(self._examples)

    def means(self):
        """Give name → mean over the examples added; NaN where there were none."""
        examples = int(self._examples)
        return {
            name: float(total) / examples if examples else float("nan")
            for name, total in self._sums.items()
        }


def make_train_step(network, objective, optimizer, totals, *, xla=False):
    """Give a function of (images, labels) that updates the network and adds to `totals`.

    Takes uint8 (batch, height, width, channels) and int64 (batch,). Gives the loss that was
    minimised, a float32 scalar, penalties included. `xla` compiles the whole step.
    """

    # Shapes may vary (the last batch of an epoch): one graph for each, not one for all, because
    # XLA and oneDNN both make better code for a batch size they know.
    @tf.function(jit_compile=xla)
    def train_step(images, labels):
        with tf.GradientTape() as tape:
            scores = network(tf.cast(images, tf.float32), training=True)
            loss = objective.training_loss(labels, scores, network)
        weights = network.trainable_variables
        optimizer.apply(tape.gradient(loss, weights), weights)
        totals.add(objective.measures(labels, scores))
        return loss

    return train_step


def make_evaluation_step(network, objective, totals, *, xla=False):
    """Give a function of (images, labels) that adds to `totals` and gives the scores."""

    @tf.function(jit_compile=xla)
    def evaluation_step(images, labels):
        scores = network(tf.cast(images, tf.float32), training=False)
        totals.add(objective.measures(labels, scores))
        return scores

    return evaluation_step
