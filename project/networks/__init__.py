"""Networks by name: `--model simple`. To add one, write its function and a line here.

A network is a function of (image_shape, class_count) and of the hyperparameters that it names as
keyword arguments; project/settings.py has their defaults. It takes pixels in [0, 255] and returns
logits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from library.errors import SettingsError
from library.messages import choose
from library.models.functional import to_functional
from project.networks.applications import application
from project.networks.hub import hub
from project.networks.residual import residual
from project.networks.simple import simple
from project.settings import keywords_of

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "application": application,
    "hub": hub,
    "residual": residual,
    "simple": simple,
}


def make_network(
    name: str,
    image_shape: tuple[int, int, int],
    class_count: int,
    hyperparameters: Mapping[str, Any],
) -> keras.Model:
    """Build a network by name.

    Args:
        name: A key of NETWORKS, or `latest` for the last one.
        image_shape: (height, width, channels).
        class_count: Number of classes.
        hyperparameters: All hyperparameters; the network gets those that it names.

    Returns:
        A functional model from float32 pixels in [0, 255], shape (batch, *image_shape), to float32
        logits, shape (batch, class_count), called by its name here unless it has one of its own.

    Raises:
        ChoiceError: There is no such network.
        SettingsError: standardize_images is set, and the network has no such keyword.
    """
    if name == "latest":
        name = list(NETWORKS)[-1]
    function = choose("network", name, NETWORKS)
    keywords = keywords_of(function, hyperparameters)
    if hyperparameters["standardize_images"] and "standardize_images" not in keywords:
        raise SettingsError(
            f"standardize_images has no effect on the network {name}, which prepares images in "
            "its own way; remove it"
        )
    network = function(image_shape, class_count, **keywords)
    return to_functional(network, image_shape, name)
