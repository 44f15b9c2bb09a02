"""Any network of keras.applications as a base, with a new head."""

import contextlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
from keras import layers

from library.errors import SettingsError, UserError
from library.messages import choose
from library.models.freezing import infer_while_frozen
from library.models.hub_download import socket_timeout
from library.saving.snapshots import speed_up_saving
from project.networks.heads import add_scores

APPLICATIONS = {
    name: function
    for name, function in vars(keras.applications).items()
    if callable(function) and name[0].isupper()
}


def application(
    image_shape: tuple[int, int, int],
    class_count: int,
    *,
    application: str,
    application_weights: str | Path | None,
    fine_tuning: bool,
    dropout_rate: float,
    head: str,
) -> keras.Model:
    """Build the application's averaged features → dropout → logits.

    Unless fine-tuned, the base is frozen. While it is frozen, it runs in inference mode. The
    network prepares pixels as the application was trained with.

    Args:
        image_shape: (height, width, channels).
        class_count: Number of classes.
        application: A name in keras.applications.
        application_weights: `imagenet`, a file (.weights.h5 or .h5 without top), or None to train
            from scratch.
        fine_tuning: Whether to train the base too.
        dropout_rate: Share of features to drop out.
        head: See `add_scores`.

    Returns:
        A model as `make_network` describes it.

    Raises:
        ChoiceError: There is no such application.
        SettingsError: The images are too small, or the file does not fit.
        UserError: The weights can't be downloaded.
    """
    function = choose("application", application, APPLICATIONS)
    base = _make_base(function, application_weights, (*image_shape[:2], 3))
    is_trained = fine_tuning or application_weights is None
    # Set now, because EfficientNetV2 looks up its layers by its own name.
    base.name = "base"
    base.trainable = is_trained
    infer_while_frozen(base)
    pixels = x = keras.Input(image_shape)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = sys.modules[function.__module__].preprocess_input(x)
    # A frozen base stays in inference mode when the network is loaded from a file, too.
    x = base(x) if is_trained else base(x, training=False)
    x = layers.Dropout(dropout_rate)(x)
    logits = add_scores(x, class_count, head, pretrained=application_weights is not None)
    return keras.Model(pixels, logits, name="application")


def _make_base(
    function: Callable[..., keras.Model],
    weights: str | Path | None,
    image_shape: tuple[int, int, int],
) -> keras.Model:
    is_file = weights not in ("imagenet", None)
    if is_file and not Path(str(weights)).is_file():
        raise SettingsError(
            f"application_weights must be imagenet, none or a file; {weights} does not exist"
        )
    speed_up_saving()
    try:
        # Keras prints a download's progress to stdout, which is for results.
        with socket_timeout(), contextlib.redirect_stdout(sys.stderr):
            base = function(
                include_top=False,
                weights=None if is_file else weights,
                input_shape=image_shape,
                pooling="avg",
            )
        if is_file:
            _load_weights(base, function.__name__, str(weights))
        return base
    except ValueError as error:
        # The images are too small, as Keras's first sentence says.
        raise SettingsError(f"{function.__name__}: {_first_sentence(error)}") from error
    except UserError:
        raise
    except Exception as error:
        # Keras raises a bare Exception if a download fails.
        raise UserError(
            f"cannot read the weights of {function.__name__}: {_first_sentence(error)}; "
            "--application_weights can be a file or none"
        ) from error


def _load_weights(base: keras.Model, name: str, path: str) -> None:
    try:
        with warnings.catch_warnings():
            # Keras warns about each of hundreds of layers that it does not find.
            warnings.simplefilter("ignore")
            base.load_weights(path)
    except ValueError as error:
        raise SettingsError(
            f"application_weights: {path} does not fit {name} without its top layers "
            f"({_first_sentence(error)}); for weights of a whole network use checkpoint_path"
        ) from error


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0]
