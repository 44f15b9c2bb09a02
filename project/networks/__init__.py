"""Networks by name: `--model simple`. To add one, write its function and one word here.

A network is a function of (image_shape, class_count) and of the hyperparameters that it names as
keyword arguments. It takes pixels in [0, 255] and gives logits.
"""

from library.errors import SettingsError
from library.messages import choose
from project.keywords import keywords_of
from project.networks.applications import application
from project.networks.hub import hub
from project.networks.residual import residual
from project.networks.simple import simple

NETWORKS = {
    "application": application,
    "hub": hub,
    "residual": residual,
    "simple": simple,
}


def make_network(name, image_shape, class_count, hyperparameters):
    """Return the network called `name`; `latest` is the last one in NETWORKS.

    `hyperparameters` is a dict; the network gets those that its keyword arguments name. Raises
    ChoiceError for an unknown name, and SettingsError for standardize_images if it has no such
    keyword.
    """
    if name == "latest":
        name = list(NETWORKS)[-1]
    function = choose("network", name, NETWORKS)
    keywords = keywords_of(function, hyperparameters)
    if hyperparameters["standardize_images"] and "standardize_images" not in keywords:
        raise SettingsError(
            f"standardize_images is not for the network {name}, which prepares images in its own "
            "way: leave it out"
        )
    return function(image_shape, class_count, **keywords)
