"""Networks of any kind as functional models, whose layers can be reached."""

import re

import keras

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
