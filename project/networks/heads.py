"""What every network ends with: scores for the classes, from features."""

import keras
from keras import layers

from library.errors import SettingsError
from library.models.scores import MULTI_LABEL


def add_scores(features, class_count, head="softmax"):
    """Return logits, float32, shape (batch, class_count), for features of shape (batch, size).

    `softmax` learns one score a class, and so does `multi_label`, where each is a question of its
    own: the layer's name tells that to evaluation and export. `sigmoid`, for two classes, learns
    one score in all, by how much the second class is likelier: beside a constant 0, softmax makes
    its sigmoid of it, so that loss, metrics and export need not know. Raises SettingsError for it
    with more classes.
    """
    # float32 even under mixed precision: float16 scores overflow in the loss.
    if head != "sigmoid":
        name = MULTI_LABEL if head == "multi_label" else "scores"
        return layers.Dense(class_count, dtype="float32", name=name)(features)
    if class_count != 2:
        raise SettingsError(f"head sigmoid is for 2 classes, there are {class_count}: use softmax")
    score = layers.Dense(1, dtype="float32", name="scores")(features)
    return keras.ops.pad(score, [[0, 0], [1, 0]])


def choose_head(head, is_multi_label):
    """Return the head for images of one class each, or of several. Raises SettingsError."""
    if head == "auto":
        return "multi_label" if is_multi_label else "softmax"
    if is_multi_label and head != "multi_label":
        raise SettingsError(
            f"head {head} is for images of one class each, these have several: use multi_label"
        )
    if head == "multi_label" and not is_multi_label:
        raise SettingsError(
            "head multi_label is for images of several classes, these have one each: convert them "
            "with --label_separator, or use softmax"
        )
    return head
