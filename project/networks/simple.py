"""A small convolutional network that makes good use of a CPU."""

import keras
from keras import layers

from project.networks.heads import add_scores


def simple(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    width: int,
    dropout_rate: float,
    standardize_images: bool,
    head: str,
) -> keras.Model:
    """Build normalized convolutions, each halving the image, until 3 pixels or fewer are left.

    Args:
        image_shape: (height, width, channels).
        class_count: Number of classes.
        width: Filters of the first convolution; each later one has twice as many, up to 8 times.
        dropout_rate: Share of features to drop out before the last layer.
        standardize_images: Whether to scale each image to mean 0 and standard deviation 1.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.
    """
    pixels = keras.Input(image_shape)
    # Rescale inside the network, so that an exported model takes raw pixels.
    if standardize_images:
        x = layers.LayerNormalization(
            axis=[1, 2, 3], center=False, scale=False, dtype="float32", name="standardization"
        )(pixels)
    else:
        x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    number = 0
    while min(x.shape[1:3]) > 3:
        x = _block(x, width * min(2**number, 8), f"block{number + 1}")
        number += 1
    # Flatten instead of averaging, because the position of something distinguishes classes.
    x = layers.Flatten()(x)
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="simple")


def _block(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    # Named, for --trainable_scopes and for loading weights by name. No bias: the normalization
    # that follows would cancel it.
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_convolution")(x)
    # Pooling before normalization leaves that a quarter of the work, which makes the whole
    # training step 1.4 times as fast on two cores.
    x = layers.MaxPooling2D()(x)
    # With Keras's 0.99 the statistics lag behind for the first thousand steps, which is too long
    # for a short training.
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(x)
    return layers.ReLU()(x)
