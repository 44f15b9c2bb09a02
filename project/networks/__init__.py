"""Networks by name: `--model simple`. To add one, write its function and one word here.

A network is a function of (image_shape, class_count) and of the hyperparameters that it names as
keyword arguments. It takes pixels in [0, 255] and gives logits.
"""

from library.choices import choose
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
    """Give the network called `name`; `latest` is the last one in NETWORKS.

    `hyperparameters` is a dict; the network gets those that its keyword arguments name. Raises
    ChoiceError for an unknown name.
    """
    if name == "latest":
        name = list(NETWORKS)[-1]
    function = choose("network", name, NETWORKS)
    return function(image_shape, class_count, **keywords_of(function, hyperparameters))
