"""The loss to minimize and the metrics, for images of one class each and for multi-label data.

A loss is a function of (targets, scores), both float32 (batch, classes): shares of the classes in
[0, 1], soft ones with label smoothing, MixUp or CutMix, and logits. It names the hyperparameters
that it needs as keyword-only arguments. It returns float32 (batch,) or, where each class is a
question of its own, (batch, classes), of which the mean over classes is minimized. To add one,
write it, put it in LOSSES, and add its hyperparameters to project/hyperparameters.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from library.errors import SettingsError
from library.messages import choose, listed
from project.hyperparameters import keywords_of

LossFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def cross_entropy(targets: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """-log p of the image's class, by softmax."""
    return tf.nn.softmax_cross_entropy_with_logits(targets, scores)


def binary_cross_entropy(targets: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """-log p of each answer, by one sigmoid per class.

    For images of one class each: Wightman et al. 2021, "ResNet strikes back" (arXiv 2110.00476).
    """
    return tf.nn.sigmoid_cross_entropy_with_logits(targets, scores)


def focal(targets: tf.Tensor, scores: tf.Tensor, *, focal_gamma: float) -> tf.Tensor:
    """-(1 - p)^gamma log p by softmax: Lin et al. 2017 (arXiv 1708.02002), equation 4."""
    return tf.reduce_sum(targets * _focal_term(tf.nn.log_softmax(scores), focal_gamma), 1)


def binary_focal(
    targets: tf.Tensor, scores: tf.Tensor, *, focal_gamma: float, focal_alpha: float | None
) -> tf.Tensor:
    """Focal loss by one sigmoid per class, times alpha for the image's classes (equation 5)."""
    own, other = (1.0, 1.0) if focal_alpha is None else (focal_alpha, 1 - focal_alpha)
    found = own * _focal_term(tf.math.log_sigmoid(scores), focal_gamma)
    excluded = other * _focal_term(tf.math.log_sigmoid(-scores), focal_gamma)
    return targets * found + (1 - targets) * excluded


def asymmetric(
    targets: tf.Tensor,
    scores: tf.Tensor,
    *,
    asymmetric_gamma_positive: float,
    asymmetric_gamma_negative: float,
    asymmetric_clip: float,
) -> tf.Tensor:
    """Ridnik et al. 2021 (arXiv 2009.14119): focal, with a stronger exponent for absent classes.

    Their probability counts as lower by the clip, so that easy and mislabeled ones are ignored.
    """
    log_absent = tf.math.log_sigmoid(-scores)
    if asymmetric_clip:
        log_absent = tf.math.log(tf.minimum(tf.sigmoid(-scores) + asymmetric_clip, 1.0))
    found = _focal_term(tf.math.log_sigmoid(scores), asymmetric_gamma_positive)
    return targets * found + (1 - targets) * _focal_term(log_absent, asymmetric_gamma_negative)


def softmax_asymmetric(
    targets: tf.Tensor,
    scores: tf.Tensor,
    *,
    asymmetric_gamma_positive: float,
    asymmetric_gamma_negative: float,
    xentropy_label_smoothing: float,
) -> tf.Tensor:
    """Asymmetric loss by softmax: ASLSingleLabel in the code of Ridnik et al. (Alibaba-MIIL/ASL).

    -w t log p of each class, where t is the smoothed target and w is (1 - p)^gamma_positive for the
    image's class, p^gamma_negative for others. So without label smoothing it is the focal loss.
    """
    smoothed = xentropy_label_smoothing / targets.shape[-1]
    shares = (targets - smoothed) / (1 - xentropy_label_smoothing)
    log_p = tf.nn.log_softmax(scores)
    found = _focal_term(log_p, asymmetric_gamma_positive)
    absent = -tf.exp(asymmetric_gamma_negative * log_p) * log_p
    own = 1 - xentropy_label_smoothing + smoothed
    return tf.reduce_sum(shares * own * found + (1 - shares) * smoothed * absent, 1)


def poly(targets: tf.Tensor, scores: tf.Tensor, *, poly_epsilon: float) -> tf.Tensor:
    """Cross-entropy + epsilon (1 - p): Poly-1 of Leng et al. 2022 (arXiv 2204.12511).

    Its first term in powers of 1 - p has the coefficient 1 + epsilon.
    """
    missing = tf.reduce_sum(targets * (1 - tf.nn.softmax(scores)), 1)
    return cross_entropy(targets, scores) + poly_epsilon * missing


def binary_poly(targets: tf.Tensor, scores: tf.Tensor, *, poly_epsilon: float) -> tf.Tensor:
    """Poly-1 by one sigmoid per class."""
    p = tf.sigmoid(scores)
    missing = targets * (1 - p) + (1 - targets) * p
    return binary_cross_entropy(targets, scores) + poly_epsilon * missing


def _focal_term(log_p: tf.Tensor, gamma: float) -> tf.Tensor:
    """Return -(1 - p)^gamma log p."""
    # Not below 1e-7: for gamma < 1 the slope is infinite at 0.
    return -(tf.maximum(1 - tf.exp(log_p), 1e-7) ** gamma) * log_p


class Loss(NamedTuple):
    """A loss for images of one class each, and for multi-label data; None: not defined there."""

    single_label: Callable[..., tf.Tensor] | None
    multi_label: Callable[..., tf.Tensor] | None


LOSSES = {
    "asymmetric": Loss(softmax_asymmetric, asymmetric),
    "binary_cross_entropy": Loss(binary_cross_entropy, binary_cross_entropy),
    "cross_entropy": Loss(cross_entropy, binary_cross_entropy),
    "focal": Loss(focal, binary_focal),
    "poly": Loss(poly, binary_poly),
}


def choose_loss(hyperparameters: Mapping[str, Any], *, is_multi_label: bool) -> LossFunction:
    """Return the loss of the settings, a function of (targets, scores).

    Args:
        hyperparameters: The values of all hyperparameters.
        is_multi_label: Whether an image may have several classes, or none.

    Raises:
        ChoiceError: The name is unknown.
        SettingsError: The loss, or one of its settings, is not defined for such labels.
    """
    name = hyperparameters["loss"]
    function = choose("loss", name, LOSSES)[is_multi_label]
    if function is None:
        labels = "multi-label data" if is_multi_label else "images of one class each"
        fitting = [other for other, each in LOSSES.items() if each[is_multi_label]]
        raise SettingsError(f"loss {name} is not for {labels}: choose one of {listed(fitting)}")
    if function is focal and hyperparameters["focal_alpha"] is not None:
        raise SettingsError(
            "focal_alpha weighs the classes that an image has against those that it has not, so it "
            "needs multi-label data: use class_weight"
        )
    if hyperparameters["logit_adjustment"] and (is_multi_label or name == "binary_cross_entropy"):
        raise SettingsError(
            "logit_adjustment needs a softmax over the classes: images of one class each, and "
            "another loss than binary_cross_entropy"
        )
    if function is binary_cross_entropy and hyperparameters["head"] == "sigmoid":
        # Softmax turns that head's single logit into its sigmoid: the same loss.
        function = cross_entropy
    return partial(function, **keywords_of(function, hyperparameters))


@dataclass(frozen=True)
class Objective:
    """A loss to minimize, by default cross-entropy; the metrics cross-entropy and accuracy."""

    label_smoothing: float = 0.0
    l2_regularization: float = 0.0
    # The weight of each class in the training loss; None: 1.
    class_weights: tuple[float, ...] | None = None
    loss: LossFunction = cross_entropy
    # What the training loss adds to the logit of each class; None: nothing.
    logit_offsets: tuple[float, ...] | None = None

    names: ClassVar[tuple[str, ...]] = ("loss", "accuracy")  # of the metrics

    def metrics(self, labels: tf.Tensor, scores: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return each metric per example: name → float32 (batch,).

        Args:
            labels: int64 (batch,), or float32 (batch, classes) for mixed images.
            scores: Logits, float32 (batch, classes).

        Returns:
            The cross-entropy, whatever is minimized, without label smoothing, class weights or
            logit adjustment, so that networks can be compared; and the accuracy, 1 if the highest
            score is that of the label, or of the largest share of a mixed image.
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

        The loss with label smoothing s (Szegedy et al. 2015, arXiv 1512.00567): the target of
        the true class is 1 - s + s / classes, of each other class s / classes. It is multiplied by
        the weight of the class; for mixed images, by the mean of their classes' weights.
        """
        labels, classes = tf.convert_to_tensor(labels), scores.shape[-1]
        shares = labels if labels.dtype.is_floating else tf.one_hot(labels, classes)
        targets = shares * (1 - self.label_smoothing) + self.label_smoothing / classes
        if self.logit_offsets is not None:
            scores += tf.constant(self.logit_offsets, tf.float32)
        losses = self.loss(targets, tf.convert_to_tensor(scores))
        if losses.shape.rank == 2:
            losses = tf.reduce_mean(losses, 1)
        if self.class_weights is None:
            return losses
        return losses * tf.linalg.matvec(shares, tf.constant(self.class_weights, tf.float32))

    def penalty(self, network: keras.Model) -> tf.Tensor:
        """Return the scalar to add to the mean loss: L2, and the network's own penalties."""
        # A TF-Hub module may have penalties of its own.
        penalties = [tf.cast(each, tf.float32) for each in network.losses]
        # Gradients of an L2 penalty of 0 took 7 % of a step of MobileNetV2 at batch size 8.
        if self.l2_regularization:
            penalties.append(self._l2(network))
        return tf.add_n(penalties) if penalties else tf.zeros([])

    def _l2(self, network: keras.Model) -> tf.Tensor:
        # Kernels only: decaying biases and normalization scales helps nothing.
        kernels = [each for each in network.trainable_variables if len(each.shape) > 1]
        squares = [tf.nn.l2_loss(tf.cast(each, tf.float32)) for each in kernels]
        return self.l2_regularization * tf.add_n([tf.zeros([]), *squares])


@dataclass(frozen=True)
class MultiLabelObjective(Objective):
    """The same for images that may have several classes, or none: a sigmoid for each class."""

    loss: LossFunction = binary_cross_entropy

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
        Each class's loss is multiplied by the weight of the class.
        """
        targets = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = self.loss(targets, tf.convert_to_tensor(scores))
        if self.class_weights is not None:
            losses *= tf.constant(self.class_weights, tf.float32)
        return tf.reduce_mean(losses, 1)
