"""Residual networks for small images, as in He et al. 2015 (arXiv 1512.03385, section 4.2)."""

import keras
from keras import layers

from library.errors import SettingsError
from project.networks.heads import add_scores


def residual(
    image_shape,
    class_count,
    *,
    residual_layers=56,
    residual_dropout_rate=0.0,
    standardize_images=True,
    head="softmax",
):
    """Return ResNet-20, 32, 44, 56 or 110: 6n + 2 layers, of 16, 32 and 64 channels.

    Shortcuts have no weights (option A of the paper): ResNet-56 has 0.85 million parameters. The
    paper drops no features out.
    Takes float32 pixels in [0, 255], shape (batch, height, width, channels); made for 32 x 32.
    `standardize_images` asks for what it does in any case.
    Returns logits, float32, shape (batch, class_count).
    """
    if residual_layers < 8 or residual_layers % 6 != 2:
        raise SettingsError(f"residual_layers must be 6n + 2, such as 56, not {residual_layers}")
    pixels = keras.Input(image_shape)
    # Each image to mean 0 and deviation 1, whatever its light; no weights to learn.
    x = layers.LayerNormalization(
        axis=[1, 2, 3], center=False, scale=False, dtype="float32", name="standardization"
    )(pixels)
    x = _convolution(x, 16, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    blocks = (residual_layers - 2) // 6
    for stage, channels in enumerate((16, 32, 64), 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, channels, stride, f"stage{stage}_block{block}")
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    if residual_dropout_rate:
        x = layers.Dropout(residual_dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="residual")


def _block(x, channels, stride, name):
    shortcut = x
    if stride > 1:
        # Every second pixel, and zeros for the new channels: no weights.
        shortcut = layers.MaxPooling2D(1, strides=stride, name=f"{name}_shortcut")(x)
        missing = channels - x.shape[-1]
        shortcut = keras.ops.pad(
            shortcut, [[0, 0], [0, 0], [0, 0], [missing // 2, missing - missing // 2]]
        )
    x = _convolution(x, channels, stride, f"{name}_1")
    x = layers.ReLU(name=f"{name}_1_relu")(x)
    x = _convolution(x, channels, 1, f"{name}_2")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x, channels, stride, name):
    # No bias: the normalization that follows would take it away again.
    x = layers.Conv2D(
        channels,
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_convolution",
    )(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(x)
