"""Class imbalance: weights in the loss, adjusted logits, or oversampling of the smaller classes.

For training only: an evaluation measures the data as it is.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from library.errors import SettingsError
from library.messages import did_you_mean

# Keys are processed in chunks, so that a few ops serve many of them.
_CHUNK = 256


def class_weights(
    words: Sequence[str], classes: Sequence[str], class_counts: Sequence[int]
) -> tuple[float, ...] | None:
    """Return a weight per class, or None if all are equal.

    Args:
        words: `auto`, or some of `class=weight`; the other classes have weight 1. `auto` gives
            each class the same total: examples / (classes · examples of this class), as
            scikit-learn's "balanced".
        classes: The class names.
        class_counts: Examples per class.

    Raises:
        SettingsError: A word is not of that form.
    """
    if not words:
        return None
    if tuple(words) == ("auto",):
        counts = np.array(class_counts, float)
        # The weight of a class without examples is never used.
        balanced = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 1.0)
        return tuple(balanced.tolist())
    weights = dict.fromkeys(classes, 1.0)
    for word in words:
        name, _, text = word.rpartition("=")
        if name not in weights:
            hint = did_you_mean(name or text, classes)
            raise SettingsError(f"class_weight: {word!r} does not name a class{hint}")
        weights[name] = _parse_weight(word, text)
    return tuple(weights[each] for each in classes)


def logit_offsets(class_counts: Sequence[int], tau: float) -> tuple[float, ...]:
    """Return what the loss adds to the logit of each class: tau times the log of its prior.

    Menon et al. 2021, "Long-tail learning via logit adjustment" (arXiv 2007.07314). A
    class without examples counts as if it had one.
    """
    counts = np.maximum(np.array(class_counts, float), 1)
    return tuple((tau * np.log(counts / counts.sum())).tolist())


def oversampled_count(class_counts: Sequence[int]) -> int:
    """Return the number of examples in an epoch if each class is as large as the largest."""
    return max(class_counts) * sum(count > 0 for count in class_counts)


def oversample(
    keys: tf.data.Dataset,
    labels_of: Callable[[tf.Tensor], tf.Tensor],
    class_counts: Sequence[int],
) -> tf.data.Dataset:
    """Repeat the keys of smaller classes until each class is exactly as large as the largest.

    An example of a class with a third as many examples as the largest comes three times. If the
    ratio is not a whole number, some come once more than others: which ones depends on the order.

    Args:
        keys: Each example once.
        labels_of: Returns the class ids, int64 (n,), of keys (n,).
        class_counts: Examples per class.
    """
    counts = tf.constant(class_counts, tf.int64)
    largest = tf.reduce_max(counts)

    def repeat(seen: tf.Tensor, chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels = labels_of(chunk)
        one_hot = tf.one_hot(labels, len(class_counts), dtype=tf.int64)
        # Index of each example within its class.
        index = tf.gather(seen, labels) + tf.reduce_sum(
            tf.cumsum(one_hot, exclusive=True) * one_hot, 1
        )
        count = tf.gather(counts, labels)
        # Differences of a staircase that climbs to `largest` in `count` steps.
        repeats = (index + 1) * largest // count - index * largest // count
        return seen + tf.reduce_sum(one_hot, 0), tf.repeat(chunk, repeats)

    return keys.batch(_CHUNK).scan(tf.zeros_like(counts), repeat).unbatch()


def _parse_weight(word: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise SettingsError(f"class_weight: {word!r} needs a number of at least 0")
    return weight
