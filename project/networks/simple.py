"""A small convolutional network that makes good use of a CPU."""

import keras
from keras import layers

from project.networks.heads import add_scores


def simple(
    image_shape,
    class_count,
    *,
    width=32,
    dropout_rate=0.5,
    standardize_images=False,
    head="softmax",
):
    """Return a few normalized convolutions that halve the image until 3 pixels or fewer are left.

    The first has `width` kernels, each next one twice as many, up to eight times.
    Takes float32 pixels in [0, 255], shape (batch, height, width, channels).
    Returns unnormalised scores (logits), float32, shape (batch, class_count).
    """
    pixels = keras.Input(image_shape)
    # Scaling lives in the network, so that an exported model takes raw pixels.
    if standardize_images:
        # Each image to mean 0 and deviation 1, whatever its light; no weights to learn.
        x = layers.LayerNormalization(
            axis=[1, 2, 3], center=False, scale=False, dtype="float32", name="standardization"
        )(pixels)
    else:
        x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    number = 0
    while min(x.shape[1:3]) > 3:
        x = _block(x, width * min(2**number, 8), f"block{number + 1}")
        number += 1
    # Every place, not their average: where in the picture something is tells classes apart.
    x = layers.Flatten()(x)
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="simple")


def _block(x, width, name):
    # Names of their own, for --trainable_scopes and for loading weights by name.
    # No bias: the normalization that follows would take it away again.
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_convolution")(x)
    # Halved before it is normalized: a quarter of the work, and that is most of a step's time
    # beside the convolution (the whole step is 1.4 times as fast on two cores).
    x = layers.MaxPooling2D()(x)
    # Keras's 0.99 lags behind for the first thousand steps: too long for a short training.
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_normalization")(x)
    return layers.ReLU()(x)
