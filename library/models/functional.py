"""Networks of any kind as functional models, whose layers can be reached."""

import re

import keras
import tensorflow as tf

from library.errors import SettingsError

_AUTOMATIC_NAME = re.compile(r"(functional|sequential)(_\d+)?")


def to_functional(
    network: keras.Model, image_shape: tuple[int, ...] | None = None, name: str | None = None
) -> keras.Model:
    """Return a network with the same layers as a functional model.

    Args:
        network: A functional, sequential or subclassed model; one that is not built yet needs
            `image_shape`.
        image_shape: (height, width, channels).
        name: The model's name, unless the network has one that Keras did not choose.
    """
    if is_functional(network):
        if name and _AUTOMATIC_NAME.fullmatch(network.name):
            network.name = name
        return network
    if isinstance(network, keras.Sequential):
        if not network.built:
            network.build((None, *(image_shape or ())))
        has_own_name = not _AUTOMATIC_NAME.fullmatch(network.name)
        chosen = network.name if has_own_name else name or network.name
        return keras.Model(network.inputs[0], network.outputs[0], name=chosen)
    pixels = keras.Input(image_shape)
    return keras.Model(pixels, network(pixels), name=name or network.name)


def is_functional(network: keras.Model) -> bool:
    """Return whether a model is a graph of layers, not a sequence and not code of its own."""
    return hasattr(network, "operations") and not isinstance(network, keras.Sequential)


def allow_image_size(network: keras.Model, image_shape: tuple[int, int, int]) -> None:
    """Let a functional model take images of other sizes than its own, with the same weights.

    Args:
        network: The model; with its nested models, it no longer checks the size of its input.
        image_shape: (height, width, channels) of a size that it will get.

    Raises:
        SettingsError: The network has a fixed size: it flattens images, for example.
    """
    for layer in network._flatten_layers():
        if is_functional(layer) and len(layer.inputs) == 1:
            unsized = (None, None, None, layer.inputs[0].shape[-1])
            layer.input_spec = keras.layers.InputSpec(shape=unsized)
    call = tf.function(lambda images: network(images, training=False), autograph=False)
    try:
        # Run it, because a transformer finds only then that it has positions for other sizes.
        call(tf.zeros((1, *image_shape)))
    except Exception as error:
        # Keras, TensorFlow and the layers' own code raise errors of many kinds.
        height, width, _ = image_shape
        raise SettingsError(
            f"progressive: the network {network.name} can't take images of {height} x {width}; "
            "its weights are for a fixed size, or the size is too small: use another --model or "
            "a larger factor"
        ) from error
