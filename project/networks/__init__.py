"""Networks by name: `--model simple`. To add one, write its function and a line here.

A network is a function of (image_shape, class_count) and of the hyperparameters that it names as
keyword arguments; project/hyperparameters.py has their defaults. It takes pixels in [0, 255] and
returns logits.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from library.errors import SettingsError
from library.messages import ChoiceError, choose, nearest
from library.models.functional import to_functional
from project.hyperparameters import keywords_of
from project.networks.applications import APPLICATIONS, application
from project.networks.efficientnet_lite0 import efficientnet_lite0
from project.networks.hub import hub
from project.networks.preset import preset
from project.networks.residual import residual
from project.networks.resnet9 import resnet9
from project.networks.simple import simple

NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "application": application,
    "efficientnet_lite0": efficientnet_lite0,
    "hub": hub,
    "preset": preset,
    "residual": residual,
    "resnet9": resnet9,
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
    if name not in NETWORKS and (meant := _find_meant(name)):
        raise ChoiceError(f"unknown network {name!r}; did you mean {meant}?")
    function = choose("network", name, NETWORKS)
    keywords = keywords_of(function, hyperparameters)
    if hyperparameters["standardize_images"] and "standardize_images" not in keywords:
        raise SettingsError(
            f"standardize_images has no effect on the network {name}, which prepares images in "
            "its own way; remove it"
        )
    network = function(image_shape, class_count, **keywords)
    return to_functional(network, image_shape, name)


def _find_meant(name: str) -> str | None:
    """Return the options for a name that is an application, a module or a preset instead."""
    if name.startswith(("hf://", "kaggle://")) or Path(name, "model.weights.h5").is_file():
        return f"--model preset --preset {shlex.quote(name)}"
    if "://" in name or name.startswith("tfhub.dev/") or Path(name, "saved_model.pb").is_file():
        url = f"https://{name}" if name.startswith("tfhub.dev/") else name
        return f"--model hub --hub_handle {shlex.quote(url)}"
    known = {_simplify(each): each for each in APPLICATIONS}
    simple = _simplify(name)
    if simple not in known and nearest(name, NETWORKS):
        return None
    found = known.get(simple) or known.get(nearest(simple, known) or "")
    return found and f"--model application --application {found}"


def _simplify(name: str) -> str:
    """Return a name without what people write in different ways: resnet_50, ResNet-50."""
    return re.sub("[^a-z0-9]", "", name.lower())
