"""Any network of keras.applications as a base, with a new head."""

import contextlib
import socket
import sys
import warnings
from pathlib import Path

import keras
from keras import layers

from library.errors import SettingsError, UserError
from library.messages import choose
from library.models.freezing import infer_while_frozen
from project.networks.heads import add_scores

# How long the server of the ImageNet weights may stay silent.
TIMEOUT_SECONDS = 20
APPLICATIONS = {
    name: function
    for name, function in vars(keras.applications).items()
    if callable(function) and name[0].isupper()
}


def application(
    image_shape,
    class_count,
    *,
    application="MobileNetV2",
    application_weights="imagenet",
    fine_tuning=False,
    dropout_rate=0.5,
    head="softmax",
):
    """Return the network's averaged features → dropout → scores.

    `application_weights` is `imagenet`, a file (.weights.h5 or .h5 without top), or None for a
    network that learns from nothing. Unless fine-tuned, the base is frozen. As long as it is, it
    runs in inference mode. Takes float32 pixels in [0, 255], shape (batch, height, width,
    channels), and prepares them as the network was trained with. Returns logits, float32, shape
    (batch, class_count).
    """
    function = choose("application", application, APPLICATIONS)
    base = _make_base(function, application_weights, (*image_shape[:2], 3))
    is_trained = fine_tuning or application_weights is None
    # Not given to the function: EfficientNetV2 looks its layers up under its own name.
    base.name = "base"
    base.trainable = is_trained
    infer_while_frozen(base)
    pixels = x = keras.Input(image_shape)
    if image_shape[-1] == 1:
        x = layers.Concatenate()([x, x, x])
    x = sys.modules[function.__module__].preprocess_input(x)
    # Frozen for good, also where the network is read from a file.
    x = base(x) if is_trained else base(x, training=False)
    x = layers.Dropout(dropout_rate)(x)
    return keras.Model(pixels, add_scores(x, class_count, head), name="application")


def _make_base(function, weights, image_shape):
    is_file = weights not in ("imagenet", None)
    if is_file and not Path(weights).is_file():
        raise SettingsError(
            f"application_weights must be imagenet, none or a file: there is no {weights}"
        )
    try:
        # Keras tells of a download on stdout, which is for results.
        with _timeout(), contextlib.redirect_stdout(sys.stderr):
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
        # An image too small: Keras's first sentence tells.
        raise SettingsError(f"{function.__name__}: {_first_sentence(error)}") from error
    except UserError:
        raise
    except Exception as error:
        # Keras raises a bare Exception for what it cannot fetch.
        raise UserError(
            f"{function.__name__}: cannot read its weights: {_first_sentence(error)}; "
            "--application_weights takes a file, or none"
        ) from error


def _load_weights(base, name, path):
    try:
        with warnings.catch_warnings():
            # Of each of hundreds of parts that it does not find; its error is enough.
            warnings.simplefilter("ignore")
            base.load_weights(path)
    except ValueError as error:
        raise SettingsError(
            f"application_weights: {path} does not fit {name} without its top layers "
            f"({_first_sentence(error)}); for those of a whole network there is checkpoint_path"
        ) from error


@contextlib.contextmanager
def _timeout():
    # Keras waits for ever for a server that stays silent.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _first_sentence(error):
    return " ".join(str(error).split()).split(". ")[0]
