"""What is learnt and how: loss, metrics, optimizer and schedule, from the hyperparameters."""

from dataclasses import dataclass

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Objective:
    """Cross-entropy over classes, with what is measured beside it."""

    label_smoothing: float = 0.0
    l2_regularization: float = 0.0

    # The names of what `measures` gives, loss first.
    names = ("loss", "accuracy")

    def measures(self, labels, scores):
        """Give one number per example and name: float32 (batch,).

        Takes labels int64 (batch,) and logits float32 (batch, classes). The loss is the
        cross-entropy, with the labels as they are; accuracy is 1 where the highest score is right.
        """
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
        right = tf.cast(tf.equal(tf.argmax(scores, 1), labels), tf.float32)
        return {"loss": loss, "accuracy": right}

    def training_loss(self, labels, scores, network):
        """Give the scalar to minimise: mean cross-entropy with smoothed labels, and penalties.

        Label smoothing as in Szegedy et al. 2015 (arXiv 1512.00567): the right class counts
        1 - s + s / classes, each other one s / classes.
        """
        classes = scores.shape[-1]
        smooth = self.label_smoothing
        targets = tf.one_hot(labels, classes, 1 - smooth + smooth / classes, smooth / classes)
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, scores))
        # A network's own penalties: those of a TF-Hub module, say.
        penalties = [*network.losses, self._l2(network)]
        return loss + tf.add_n([tf.cast(each, tf.float32) for each in penalties])

    def _l2(self, network):
        # Kernels only: pulling biases and normalisation scales to zero helps nothing.
        kernels = [each for each in network.trainable_variables if len(each.shape) > 1]
        squares = [tf.nn.l2_loss(tf.cast(each, tf.float32)) for each in kernels]
        return self.l2_regularization * tf.add_n([tf.zeros([]), *squares])


def make_schedule(kind, learning_rate, *, total_steps, warmup_steps=0, end_learning_rate=0.0):
    """Give the learning rate as a number (fixed) or as a function of the step (cosine).

    Both rise linearly from 0 over `warmup_steps`. Cosine then falls to `end_learning_rate` at
    `total_steps` along half a cosine (Loshchilov and Hutter 2016, arXiv 1608.03983).
    """
    if kind == "fixed" and not warmup_steps:
        return learning_rate
    # A cosine that falls to where it began stays where it is.
    end = learning_rate if kind == "fixed" else end_learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        alpha=end / learning_rate,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def make_optimizer(schedule, *, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8):
    """Give Adam (Kingma and Ba 2014, arXiv 1412.6980)."""
    return keras.optimizers.Adam(
        schedule, beta_1=adam_beta1, beta_2=adam_beta2, epsilon=adam_epsilon
    )
