"""A network from TF-Hub with a new head: transfer learning, with the base frozen or fine-tuned."""

import keras
from keras import layers

from library.hub_layer import HubLayer


def hub(image_shape, class_count, *, hub_handle, fine_tuning=False, dropout_rate=0.5):
    """Give features → SELU → dropout → dense 256 → dropout → scores.

    Takes float32 pixels in [0, 255], shape (batch, height, width, channels).
    Gives logits, float32, shape (batch, class_count).
    """
    pixels = keras.Input(image_shape)
    # TF-Hub's image modules take colours in [0, 1].
    x = layers.Rescaling(1 / 255)(pixels)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = HubLayer(hub_handle, trainable=fine_tuning)(x)
    x = layers.Activation("selu")(x)
    x = layers.Dropout(dropout_rate)(x)
    x = layers.Dense(256)(x)
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, layers.Dense(class_count, dtype="float32")(x), name="hub")
