"""ResNet-9, which learns small images fast: Page 2018, "How to train your ResNet"."""

import keras
from keras import layers

from project.networks.heads import add_scores


def resnet9(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    width: int,
    dropout_rate: float,
    head: str,
) -> keras.Model:
    """Build eight convolutions, two pairs of which have a shortcut, and a linear layer.

    Args:
        image_shape: (height, width, channels). The network was designed for 32 x 32 pixels.
        class_count: Number of classes.
        width: Filters of the first convolution; the last ones have 8 times as many. The paper has
            64, for 6.6 million parameters; 16 are enough for a few thousand images.
        dropout_rate: Share of features to drop out before the last layer.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.
    """
    pixels = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = _convolution(x, width, "stem")
    for number, factor in enumerate((2, 4, 8), 1):
        x = _convolution(x, factor * width, f"stage{number}", pools=min(x.shape[1:3]) > 1)
        if number != 2:
            y = _convolution(x, factor * width, f"stage{number}_1")
            y = _convolution(y, factor * width, f"stage{number}_2")
            x = layers.Add(name=f"stage{number}_add")([x, y])
    x = layers.GlobalMaxPooling2D(name="pooling")(x)
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="resnet9")


def _convolution(
    x: keras.KerasTensor, filters: int, name: str, *, pools: bool = False
) -> keras.KerasTensor:
    # No bias: the normalization that follows would cancel it.
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_convolution")(x)
    if pools:
        # Before the normalization, which then has a quarter of the work.
        x = layers.MaxPooling2D(name=f"{name}_pooling")(x)
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
