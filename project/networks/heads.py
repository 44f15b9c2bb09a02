"""What every network ends with: logits from features."""

import keras
from keras import layers

from library.errors import SettingsError
from library.models.scores import MULTI_LABEL


def add_scores(
    features: keras.KerasTensor, class_count: int, head: str, *, pretrained: bool = False
) -> keras.KerasTensor:
    """Add the last layer.

    On pretrained features its weights start at zero (Kolesnikov et al. 2020, arXiv 1912.11370): a
    short training would not wash out random ones of more than a thousand features.

    Args:
        features: Shape (batch, size).
        class_count: Number of classes.
        head: `softmax`; `multi_label`, whose layer's name tells evaluation and export that each
            class is a question of its own; or `sigmoid`, which learns a single logit for two
            classes. Beside a constant 0, softmax turns that into its sigmoid, so that loss,
            metrics and export need no special case.
        pretrained: Whether the features are of a pretrained base.

    Returns:
        Float32 logits, shape (batch, class_count).

    Raises:
        SettingsError: Head sigmoid with another number of classes.
    """
    # float32 even under mixed precision: float16 logits overflow in the loss.
    options = {
        "dtype": "float32",
        "kernel_initializer": "zeros" if pretrained else "glorot_uniform",
    }
    if head != "sigmoid":
        name = MULTI_LABEL if head == "multi_label" else "scores"
        return layers.Dense(class_count, name=name, **options)(features)
    if class_count != 2:
        raise SettingsError(f"head sigmoid needs exactly 2 classes; there are {class_count}")
    score = layers.Dense(1, name="scores", **options)(features)
    return keras.ops.pad(score, [[0, 0], [1, 0]])


def choose_head(head: str, is_multi_label: bool) -> str:
    """Return the head for the data, after `auto` is resolved. Raises SettingsError."""
    if head == "auto":
        return "multi_label" if is_multi_label else "softmax"
    if is_multi_label and head != "multi_label":
        raise SettingsError(
            f"head {head} is for images of one class each; multi-label data need multi_label"
        )
    if head == "multi_label" and not is_multi_label:
        raise SettingsError(
            "head multi_label is for multi-label data; convert them with --label_separator, or "
            "use softmax"
        )
    return head
