"""A backbone of keras-hub with a new head, frozen or fine-tuned."""

import keras
from keras import layers

from library.models.features import FEATURES
from library.models.freezing import infer_while_frozen
from library.models.presets import find_patches, load_backbone, read_preset
from library.saving.snapshots import speed_up_saving
from project.networks.heads import add_scores


def preset(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    preset: str,
    fine_tuning: bool,
    dropout_rate: float,
    head: str,
) -> keras.Model:
    """Build the backbone's features → dropout → logits.

    Features are the average over positions; of a transformer, the class token, if there is one,
    beside the average of the patches' tokens. Unless fine-tuned, the backbone is frozen. While it
    is frozen, it runs in inference mode. Pixels are scaled as the preset says.

    Args:
        image_shape: (height, width, channels).
        class_count: Number of classes.
        preset: A name of keras-hub's registry, kaggle://…, hf://… or a folder.
        fine_tuning: Whether to train the backbone too.
        dropout_rate: Share of features to drop out.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.

    Raises:
        SettingsError: There is no such preset, or it can't take images of this size.
        UserError: It can't be downloaded.
    """
    described = read_preset(preset)
    speed_up_saving()
    base = load_backbone(described, image_shape[:2])
    base.trainable = fine_tuning
    infer_while_frozen(base)
    pixels = x = keras.Input(image_shape)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = layers.Rescaling(described.scale, described.offset)(x)
    # Some backbones take their images by name.
    inputs = dict.fromkeys(base.input, x) if isinstance(base.input, dict) else x
    # A frozen base stays in inference mode when the network is loaded from a file, too.
    x = base(inputs) if fine_tuning else base(inputs, training=False)
    x = layers.Dropout(dropout_rate)(_pool(x, base))
    logits = add_scores(x, class_count, head, pretrained=True)
    return keras.Model(pixels, logits, name="preset")


def _pool(outputs: keras.KerasTensor, base: keras.Model) -> keras.KerasTensor:
    """Return features, shape (batch, size), of a backbone's outputs."""
    if isinstance(outputs, dict):
        # Those of all stages, the last one last.
        outputs = list(outputs.values())[-1]
    if len(outputs.shape) == 4:
        return layers.GlobalAveragePooling2D(name=FEATURES)(outputs)
    _, token_count, size = outputs.shape
    other_count, rows, columns = find_patches(base, token_count)
    # As a map, for --explain_layer patches.
    patches = layers.Cropping1D((other_count, 0), name="patch_tokens")(outputs)
    patches = layers.Reshape((rows, columns, size), name="patches")(patches)
    if not other_count:
        return layers.GlobalAveragePooling2D(name=FEATURES)(patches)
    average = layers.GlobalAveragePooling2D(name="patch_average")(patches)
    first = layers.Cropping1D((0, token_count - 1), name="first_token")(outputs)
    class_token = layers.Reshape((size,), name="class_token")(first)
    return layers.Concatenate(name=FEATURES)([class_token, average])
