"""Logits become probabilities, here and nowhere else, for every kind of head."""

from typing import Any

import keras

# The name of the last layer of a multi-label network, in which each class is a question of its own:
# the probability is the sigmoid of its logit. Otherwise it is the softmax over all logits, also
# with head sigmoid, whose first logit is a constant 0.
MULTI_LABEL = "label_scores"


def is_multi_label(network: keras.Model) -> bool:
    """Return whether an image may have any number of the network's classes."""
    return any(each.name == MULTI_LABEL for each in network.layers)


def to_probabilities(scores: Any, temperature: Any = 1.0, *, multi_label: bool = False) -> Any:
    """Return the probabilities of logits.

    Args:
        scores: Logits, shape (n, classes), an array or a tensor.
        temperature: What to divide the logits by: above 1, the network becomes less confident, in
            the same order of classes (Guo et al. 2017, arXiv 1706.04599).
        multi_label: What `is_multi_label` returns for the network.

    Returns:
        A float32 tensor, shape (n, classes).
    """
    scores = keras.ops.cast(scores, "float32") / temperature
    return keras.ops.sigmoid(scores) if multi_label else keras.ops.softmax(scores, axis=-1)
