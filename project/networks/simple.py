"""A small convolutional network that makes good use of a CPU."""

import keras
from keras import layers

from project.networks.heads import add_scores


def simple(image_shape, class_count, *, dropout_rate=0.5, head="softmax"):
    """Give a few normalised convolutions that halve the image until 7 pixels or fewer are left.

    Takes float32 pixels in [0, 255], shape (batch, height, width, channels).
    Gives unnormalised scores (logits), float32, shape (batch, class_count).
    """
    pixels = keras.Input(image_shape)
    # Scaling lives in the network, so that an exported model takes raw pixels.
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = _convolution(x, 32, "block1")
    width, number = 64, 2
    while min(x.shape[1:3]) > 7:
        x = layers.MaxPooling2D()(x)
        x = _convolution(x, width, f"block{number}")
        width, number = min(2 * width, 256), number + 1
    # Nine places, not their average: where in the picture something is tells classes apart.
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="simple")


def _convolution(x, width, name):
    # Names of their own, for --trainable_scopes and for loading weights by name.
    # No bias: the normalisation that follows would take it away again.
    convolution = layers.Conv2D(
        width, 3, padding="same", use_bias=False, name=f"{name}_convolution"
    )
    # Keras's 0.99 lags behind for the first thousand steps: too long for a short training.
    normalisation = layers.BatchNormalization(momentum=0.9, name=f"{name}_normalisation")
    return layers.ReLU()(normalisation(convolution(x)))
