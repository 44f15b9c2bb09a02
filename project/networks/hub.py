"""A module from TF-Hub with a new head, frozen or fine-tuned."""

import keras
from keras import layers

from library.errors import SettingsError
from library.models.hub_layer import HubLayer
from project.networks.heads import add_scores


def hub(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    hub_handle: str,
    hub_sha256: str | None,
    fine_tuning: bool,
    dropout_rate: float,
    head: str,
) -> keras.Model:
    """Build features → SELU → dropout → dense 256 → dropout → logits.

    Args:
        image_shape: (height, width, channels).
        class_count: Number of classes.
        hub_handle: A URL, a folder, an archive or a gs:// path of a module.
        hub_sha256: The hash that the module must have; None for any.
        fine_tuning: Whether to train the module too.
        dropout_rate: Share of features to drop out, twice.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.

    Raises:
        SettingsError: The module takes images of another size.
        UserError: The module can't be loaded, or doesn't compute features of images.
    """
    base = HubLayer(hub_handle, trainable=fine_tuning, sha256=hub_sha256, name="base")
    if (size := base.module.image_size) not in (None, image_shape[:2]):
        height, width = size
        raise SettingsError(
            f"the module {hub_handle} takes images of {height} x {width} pixels, not "
            f"{image_shape[0]} x {image_shape[1]}; use --image_size {height} --image_width {width}"
        )
    base.check_images((*image_shape[:2], 3))
    pixels = keras.Input(image_shape)
    # TF-Hub's image modules take colors in [0, 1].
    x = layers.Rescaling(1 / 255)(pixels)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = base(x)
    x = layers.Activation("selu")(x)
    x = layers.Dropout(dropout_rate)(x)
    x = layers.Dense(256, name="embedding")(x)
    x = layers.Dropout(dropout_rate)(x)
    logits = add_scores(x, class_count, head, pretrained=True)
    return keras.Model(pixels, logits, name="hub")
