"""A small convolutional network that makes good use of a CPU."""

import keras
from keras import layers


def simple(image_shape, class_count, *, dropout_rate=0.5):
    """Give a few normalised convolutions that halve the image until 7 pixels or fewer are left.

    Takes float32 pixels in [0, 255], shape (batch, height, width, channels).
    Gives unnormalised scores (logits), float32, shape (batch, class_count).
    """
    pixels = keras.Input(image_shape)
    # Scaling lives in the network, so that an exported model takes raw pixels.
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    x = _convolution(x, 32)
    width = 64
    while min(x.shape[1:3]) > 7:
        x = layers.MaxPooling2D()(x)
        x = _convolution(x, width)
        width = min(2 * width, 256)
    # Nine places, not their average: where in the picture something is tells classes apart.
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    x = layers.Dropout(dropout_rate)(x)
    # float32 even under mixed precision: float16 scores overflow in the loss.
    return keras.Model(pixels, layers.Dense(class_count, dtype="float32")(x), name="simple")


def _convolution(x, width):
    # No bias: the normalisation that follows would take it away again.
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    # Keras's 0.99 lags behind for the first thousand steps: too long for a short training.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x)
