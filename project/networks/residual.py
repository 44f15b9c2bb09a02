"""Residual networks for small images, as in He et al. 2015 (arXiv 1512.03385, section 4.2)."""

import keras
from keras import layers

from library.errors import SettingsError
from project.networks.heads import add_scores


def residual(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    residual_layers: int,
    residual_dropout_rate: float,
    standardize_images: bool,
    head: str,
) -> keras.Model:
    """Build ResNet-20, 32, 44, 56 or 110: 6n + 2 layers of 16, 32 and 64 channels.

    Shortcuts have no weights (option A of the paper): ResNet-56 has 0.85 million parameters.

    Args:
        image_shape: (height, width, channels); the network was designed for 32 x 32.
        class_count: Number of classes.
        residual_layers: Number of layers.
        residual_dropout_rate: Share of features to drop out before the last layer; 0 in the paper.
        standardize_images: Has no effect: this network always standardizes images.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.

    Raises:
        SettingsError: The number of layers is not 6n + 2.
    """
    if residual_layers < 8 or residual_layers % 6 != 2:
        raise SettingsError(f"residual_layers must be 6n + 2, such as 56, not {residual_layers}")
    pixels = keras.Input(image_shape)
    # Each image to mean 0 and standard deviation 1; there are no weights to learn.
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


def _block(x: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
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


def _convolution(x: keras.KerasTensor, channels: int, stride: int, name: str) -> keras.KerasTensor:
    # No bias: the normalization that follows would cancel it.
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
