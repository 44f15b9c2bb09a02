"""A network from TF-Hub with a new head: transfer learning, with the base frozen or fine-tuned."""

import keras
from keras import layers

from library.errors import SettingsError
from library.models.hub_layer import HubLayer
from project.networks.heads import add_scores


def hub(
    image_shape,
    class_count,
    *,
    hub_handle,
    hub_sha256=None,
    fine_tuning=False,
    dropout_rate=0.5,
    head="softmax",
):
    """Return features → SELU → dropout → dense 256 → dropout → scores.

    Takes float32 pixels in [0, 255], shape (batch, height, width, channels).
    Returns logits, float32, shape (batch, class_count). Raises SettingsError if the module wants
    images of another size, UserError if it is none that makes features of images.
    """
    module = HubLayer(hub_handle, trainable=fine_tuning, sha256=hub_sha256, name="base")
    if module.image_size not in (None, image_shape[:2]):
        height, width = module.image_size
        raise SettingsError(
            f"the module {hub_handle} takes images of {height} x {width} pixels, "
            f"not {image_shape[0]} x {image_shape[1]}: --image_size {height} --image_width {width}"
        )
    module.check_images((*image_shape[:2], 3))
    pixels = keras.Input(image_shape)
    # TF-Hub's image modules take colors in [0, 1].
    x = layers.Rescaling(1 / 255)(pixels)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = module(x)
    x = layers.Activation("selu")(x)
    x = layers.Dropout(dropout_rate)(x)
    x = layers.Dense(256, name="embedding")(x)
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="hub")
