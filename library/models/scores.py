"""Scores become probabilities: the one place that knows how, for every kind of head."""

import keras

# The name of the layer that gives a network's scores says how they are meant: with this one each
# class is a question of its own (multi-label), and its score's sigmoid the answer. All other
# scores compete: softmax, which for two classes and one learned score (head sigmoid) is a sigmoid.
MULTI_LABEL = "label_scores"


def is_multi_label(network):
    """Return whether an image may have several of the network's classes, or none."""
    return any(each.name == MULTI_LABEL for each in network.layers)


def to_probabilities(scores, temperature=1.0, *, multi_label=False):
    """Return float32 (n, classes) for logits (n, classes): a NumPy array or a tensor.

    Divided by a temperature above 1 they get less sure of themselves (Guo et al. 2017, arXiv
    1706.04599); the order of the classes stays. `several` is what is_multi_label tells.
    """
    scores = keras.ops.cast(scores, "float32") / temperature
    return keras.ops.sigmoid(scores) if multi_label else keras.ops.softmax(scores, axis=-1)
