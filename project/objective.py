"""What is minimized, and what is measured beside it: where images have one class, or several."""

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Objective:
    """Cross-entropy over classes, with what is measured beside it."""

    label_smoothing: float = 0.0
    l2_regularization: float = 0.0
    # What an example of each class counts in the training loss; None: all the same.
    class_weights: tuple | None = None

    # The names of what `measures` gives, loss first.
    names = ("loss", "accuracy")

    def metrics(self, labels, scores):
        """Return one number per example and name: float32 (batch,).

        Takes labels int64 (batch,), or float32 (batch, classes) where images were mixed, and logits
        float32 (batch, classes). The loss is the cross-entropy, with the labels as they are;
        accuracy is 1 where the highest score is right: that of the largest share.
        """
        labels = tf.convert_to_tensor(labels)
        if labels.dtype.is_floating:
            loss = tf.nn.softmax_cross_entropy_with_logits(labels, scores)
            labels = tf.argmax(labels, 1)
        else:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
        right = tf.cast(tf.equal(tf.argmax(scores, 1), labels), tf.float32)
        return {"loss": loss, "accuracy": right}

    def training_losses(self, labels, scores):
        """Return what to minimize the mean of, per example: float32 (batch,).

        Cross-entropy with smoothed labels, as in Szegedy et al. 2015 (arXiv 1512.00567): the right
        class counts 1 - s + s / classes, each other one s / classes. An example then counts as
        much as its class weighs, and a mixed one as its shares of classes do.
        """
        labels, classes = tf.convert_to_tensor(labels), scores.shape[-1]
        shares = labels if labels.dtype.is_floating else tf.one_hot(labels, classes)
        targets = shares * (1 - self.label_smoothing) + self.label_smoothing / classes
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, scores)
        if self.class_weights is None:
            return losses
        return losses * tf.linalg.matvec(shares, tf.constant(self.class_weights, tf.float32))

    def penalty(self, network):
        """Return the scalar to add to the mean loss: L2, and the network's own penalties."""
        # Its own: those of a TF-Hub module, say.
        penalties = [*network.losses, self._l2(network)]
        return tf.add_n([tf.cast(each, tf.float32) for each in penalties])

    def _l2(self, network):
        # Kernels only: pulling biases and normalization scales to zero helps nothing.
        kernels = [each for each in network.trainable_variables if len(each.shape) > 1]
        squares = [tf.nn.l2_loss(tf.cast(each, tf.float32)) for each in kernels]
        return self.l2_regularization * tf.add_n([tf.zeros([]), *squares])


@dataclass(frozen=True)
class MultiLabelObjective(Objective):
    """Binary cross-entropy of each class, for images of several classes, or none."""

    names = ("loss", "accuracy", "exact_match")

    def metrics(self, labels, scores):
        """Return one number per example and name: float32 (batch,).

        Takes labels and logits, float32 (batch, classes); a label is 1 or 0, or between where
        images were mixed. The loss is the mean of the classes' cross-entropies; accuracy is the
        share of classes that are right, each with a probability above a half if and only if it is
        there; exact_match is 1 where all of them are.
        """
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, tf.convert_to_tensor(scores))
        right = tf.cast(tf.equal(scores > 0, labels > 0.5), tf.float32)
        return {
            "loss": tf.reduce_mean(losses, 1),
            "accuracy": tf.reduce_mean(right, 1),
            "exact_match": tf.reduce_min(right, 1),
        }

    def training_losses(self, labels, scores):
        """Return what to minimize the mean of, per example: float32 (batch,).

        With smoothed labels: 1 - s / 2 for a class that is there, s / 2 for one that is not. A
        class's cross-entropy counts as much as the class weighs.
        """
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, tf.convert_to_tensor(scores))
        if self.class_weights is not None:
            losses *= tf.constant(self.class_weights, tf.float32)
        return tf.reduce_mean(losses, 1)
