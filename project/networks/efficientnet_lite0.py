"""EfficientNet-Lite0 with its ImageNet weights, which are in the repository, and a new head.

Tan and Le 2019 (arXiv 1905.11946); the Lite variants have ReLU6 and no squeeze-and-excitation.
`weights/efficientnet_lite0.npz` holds the weights as float16; `weights/NOTICE.txt` tells their
source.
"""

from functools import cache
from pathlib import Path

import keras
import numpy as np
from keras import layers

from library.errors import SettingsError
from library.models.freezing import infer_while_frozen
from library.saving.snapshots import speed_up_saving
from project.networks.heads import add_scores

WEIGHTS = Path(__file__).parent / "weights" / "efficientnet_lite0.npz"
# Smaller images leave the last blocks nothing to look at, larger ones the objects that the weights
# know would be too large in.
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 96, 384
# Of each stage: blocks, kernel size, stride of its first block, expansion, filters.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MIDDLE_BLOCK = 11
_BN_EPSILON = 1e-3


def efficientnet_lite0(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    fine_tuning: bool,
    middle_features: bool,
    dropout_rate: float,
    head: str,
) -> keras.Model:
    """Build the averaged features of EfficientNet-Lite0 → dropout → logits.

    Unless fine-tuned, the base is frozen. While it is frozen, it runs in inference mode.

    Args:
        image_shape: (height, width, channels); height and width from 96 to 384.
        class_count: Number of classes.
        fine_tuning: Whether to train the base too.
        middle_features: See `make_base`.
        dropout_rate: Share of features to drop out.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.

    Raises:
        SettingsError: The images are too small or too large.
    """
    height, width, channels = image_shape
    if not all(MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE for size in (height, width)):
        raise SettingsError(
            f"efficientnet_lite0 takes images of {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels, not "
            f"{height} x {width}: change image_size, or use another --model"
        )
    base = make_base((height, width, 3), middle_features=middle_features)
    base.set_weights(read_weights())
    base.trainable = fine_tuning
    infer_while_frozen(base)
    speed_up_saving()
    pixels = x = keras.Input(image_shape)
    if channels == 1:
        x = layers.Concatenate()([x, x, x])
    # As the weights were trained.
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(x)
    # A frozen base stays in inference mode when the network is loaded from a file, too.
    x = base(x) if fine_tuning else base(x, training=False)
    x = layers.Dropout(dropout_rate)(x)
    logits = add_scores(x, class_count, head, pretrained=True)
    return keras.Model(pixels, logits, name="efficientnet_lite0")


def make_base(image_shape: tuple[int, int, int], *, middle_features: bool = False) -> keras.Model:
    """Build the convolutions and the average over positions.

    Args:
        image_shape: (height, width, 3).
        middle_features: Whether the 112 averages of the middle (block 11) follow those of the top:
            colors and textures, of which the top, made to tell objects apart, knows less.

    Returns:
        A model from float32 colors in about [-1, 1] to features, shape (batch, 1280) or (batch,
        1392).
    """
    colors = keras.Input(image_shape)
    x = _convolve(colors, 32, 3, strides=2, name="stem")
    x = layers.ReLU(6, name="stem_relu")(x)
    number = 0
    for blocks, kernel_size, first_stride, expansion, filters in _STAGES:
        for block in range(blocks):
            number += 1
            strides = first_stride if block == 0 else 1
            x = _block(x, f"block{number}", kernel_size, strides, expansion, filters)
            if number == _MIDDLE_BLOCK:
                middle = x
    x = _convolve(x, 1280, 1, name="top")
    x = layers.ReLU(6, name="top_relu")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    if middle_features:
        middle = layers.GlobalAveragePooling2D(name="middle_average")(middle)
        x = layers.Concatenate(name="averages")([x, middle])
    return keras.Model(colors, x, name="base")


@cache
def read_weights() -> list[np.ndarray]:
    """Return the weights of the base in Keras's order: float32."""
    with np.load(WEIGHTS, allow_pickle=False) as arrays:
        return [arrays[name].astype(np.float32) for name in sorted(arrays.files)]


def _block(
    x: keras.KerasTensor, name: str, kernel_size: int, strides: int, expansion: int, filters: int
) -> keras.KerasTensor:
    """Add an inverted residual block: expand, filter each channel, project, add the input."""
    start = x
    if expansion != 1:
        x = _convolve(x, expansion * x.shape[-1], 1, name=f"{name}_expand")
        x = layers.ReLU(6, name=f"{name}_expand_relu")(x)
    x = layers.DepthwiseConv2D(
        kernel_size, strides, "same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_depthwise_bn")(x)
    x = layers.ReLU(6, name=f"{name}_depthwise_relu")(x)
    x = _convolve(x, filters, 1, name=f"{name}_project")
    if strides == 1 and start.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([x, start])
    return x


def _convolve(
    x: keras.KerasTensor, filters: int, kernel_size: int, *, name: str, strides: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel_size, strides, "same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(epsilon=_BN_EPSILON, name=f"{name}_bn")(x)
