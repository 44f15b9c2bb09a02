"""What every network ends with: scores for the classes, from features."""

import keras
from keras import layers

from library.errors import SettingsError


def add_scores(features, class_count, head="softmax"):
    """Give logits, float32, shape (batch, class_count), for features of shape (batch, size).

    `softmax` learns one score a class. `sigmoid`, for two classes, learns one score in all, by how
    much the second class is likelier: beside a constant 0, softmax makes its sigmoid of it, so that
    loss, metrics and export need not know. Raises SettingsError for it with more classes.
    """
    # float32 even under mixed precision: float16 scores overflow in the loss.
    if head == "softmax":
        return layers.Dense(class_count, dtype="float32", name="scores")(features)
    if class_count != 2:
        raise SettingsError(f"head sigmoid is for 2 classes, there are {class_count}: use softmax")
    score = layers.Dense(1, dtype="float32", name="scores")(features)
    return keras.ops.pad(score, [[0, 0], [1, 0]])
