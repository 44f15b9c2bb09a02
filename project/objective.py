"""The loss to minimize and the metrics, for images of one class each and for multi-label data."""

from dataclasses import dataclass
from typing import ClassVar

import keras
import tensorflow as tf


@dataclass(frozen=True)
class Objective:
    """Cross-entropy over the classes, and accuracy."""

    label_smoothing: float = 0.0
    l2_regularization: float = 0.0
    # The weight of each class in the training loss; None: 1.
    class_weights: tuple[float, ...] | None = None

    names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")  # of the metrics

    def metrics(self, labels: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return each metric per example: name → float32 (batch,).

        Args:
            labels: int64 (batch,), or float32 (batch, classes) for mixed images.
            scores: Logits, float32 (batch, classes).

        Returns:
            The cross-entropy without label smoothing or class weights, and the accuracy, 1 if the
            highest score is that of the label, or of the largest share of a mixed image.
        """
        labels = tf.convert_to_tensor(labels)
        if labels.dtype.is_floating:
            loss = tf.nn.softmax_cross_entropy_with_logits(labels, scores)
            labels = tf.argmax(labels, 1)
        else:
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
        right = tf.cast(tf.equal(tf.argmax(scores, 1), labels), tf.float32)
        return {"loss": loss, "accuracy": right}

    def training_losses(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Return the loss to minimize per example, float32 (batch,).

        Cross-entropy with label smoothing s (Szegedy et al. 2015, arXiv 1512.00567): the target of
        the true class is 1 - s + s / classes, of each other class s / classes. It is multiplied by
        the weight of the class; for mixed images, by the mean of their classes' weights.
        """
        labels, classes = tf.convert_to_tensor(labels), scores.shape[-1]
        shares = labels if labels.dtype.is_floating else tf.one_hot(labels, classes)
        targets = shares * (1 - self.label_smoothing) + self.label_smoothing / classes
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, scores)
        if self.class_weights is None:
            return losses
        return losses * tf.linalg.matvec(shares, tf.constant(self.class_weights, tf.float32))

    def penalty(self, network: keras.Model) -> tf.Tensor:
        """Return the scalar to add to the mean loss: L2, and the network's own penalties."""
        # A TF-Hub module may have penalties of its own.
        penalties = [*network.losses, self._l2(network)]
        return tf.add_n([tf.cast(each, tf.float32) for each in penalties])

    def _l2(self, network: keras.Model) -> tf.Tensor:
        # Kernels only: decaying biases and normalization scales helps nothing.
        kernels = [each for each in network.trainable_variables if len(each.shape) > 1]
        squares = [tf.nn.l2_loss(tf.cast(each, tf.float32)) for each in kernels]
        return self.l2_regularization * tf.add_n([tf.zeros([]), *squares])


@dataclass(frozen=True)
class MultiLabelObjective(Objective):
    """Binary cross-entropy of each class, for images that may have several classes, or none."""

    names: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "exact_match")

    def metrics(self, labels: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return each metric per example: name → float32 (batch,).

        Args:
            labels: float32 (batch, classes): 1 or 0, or between for mixed images.
            scores: Logits, float32 (batch, classes).

        Returns:
            The mean of the classes' cross-entropies; the accuracy, which is the share of classes
            predicted correctly, with a threshold of 0.5; and exact_match, 1 if all of them are.
        """
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, tf.convert_to_tensor(scores))
        right = tf.cast(tf.equal(scores > 0, labels > 0.5), tf.float32)
        return {
            "loss": tf.reduce_mean(losses, 1),
            "accuracy": tf.reduce_mean(right, 1),
            "exact_match": tf.reduce_min(right, 1),
        }

    def training_losses(self, labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Return the loss to minimize per example, float32 (batch,).

        With label smoothing s, the target is 1 - s / 2 for a class of the image, s / 2 for another.
        Each class's cross-entropy is multiplied by the weight of the class.
        """
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, tf.convert_to_tensor(scores))
        if self.class_weights is not None:
            losses *= tf.constant(self.class_weights, tf.float32)
        return tf.reduce_mean(losses, 1)
