"""Classes of unequal size made to count the same: by weights in the loss, or by oversampling.

For training only: an evaluation measures the data as it is.
"""

import difflib

import numpy as np
import tensorflow as tf

from library.errors import SettingsError

# How many keys are looked at together, so that few operations serve many.
_CHUNK = 256


def class_weights(words, classes, class_counts):
    """Return a weight per class, or None where all count as they are.

    `words` are `auto` or some `class=weight`; classes not named weigh 1. `auto` gives each class
    the same total: examples / (classes · examples of this class), as scikit-learn's "balanced".
    Raises SettingsError.
    """
    if not words:
        return None
    if tuple(words) == ("auto",):
        counts = np.array(class_counts, float)
        # A class without examples never asks for its weight.
        weights = np.where(counts > 0, counts.sum() / (len(counts) * np.maximum(counts, 1)), 1.0)
        return tuple(weights.tolist())
    weights = dict.fromkeys(classes, 1.0)
    for word in words:
        name, _, text = word.rpartition("=")
        if name not in weights:
            near = difflib.get_close_matches(name or text, classes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"class_weight: {word!r} names no class{hint}")
        weights[name] = _weight(word, text)
    return tuple(weights[each] for each in classes)


def oversampled_count(class_counts):
    """Return how many examples an epoch holds in which each class is as large as the largest."""
    return max(class_counts) * sum(count > 0 for count in class_counts)


def oversample(keys, labels_of, class_counts):
    """Repeat the keys of smaller classes until each is, exactly, as large as the largest.

    An example of a class with a third of the examples of the largest comes three times; where the
    ratio is no whole number, some come once more than others: which ones depends on the order.
    """
    counts = tf.constant(class_counts, tf.int64)
    largest = tf.reduce_max(counts)

    def repeat(seen, chunk):
        labels = labels_of(chunk)
        one_hot = tf.one_hot(labels, len(class_counts), dtype=tf.int64)
        # The how-manieth of its class each example is, from 0.
        before = tf.gather(seen, labels) + tf.reduce_sum(
            tf.cumsum(one_hot, exclusive=True) * one_hot, 1
        )
        count = tf.gather(counts, labels)
        # Steps of a staircase that climbs to `largest` in `count` steps.
        repeats = (before + 1) * largest // count - before * largest // count
        return seen + tf.reduce_sum(one_hot, 0), tf.repeat(chunk, repeats)

    return keys.batch(_CHUNK).scan(tf.zeros_like(counts), repeat).unbatch()


def _weight(word, text):
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise SettingsError(f"class_weight: {word!r} wants a number of at least 0")
    return weight
