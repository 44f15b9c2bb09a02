"""How a split's images were prepared, and what was in it: to travel with a network as JSON."""

from dataclasses import asdict, fields

from library.dataset.images import ImageOptions
from library.dataset.manifest import Manifest

# What was never converted is not made smaller either: see unconverted.py.
_UNCONVERTED = ImageOptions(max_edge=0)


def describe_split(split):
    """Return what a network's user must know of the split it learned from, as JSON has it."""
    options = asdict(_options_of(split))
    return {
        "examples": split.examples,
        "class_counts": dict(zip(split.classes, split.class_counts, strict=True)),
        "fingerprint": split.fingerprint,
        "images": {**options, "background": list(options["background"])},
    }


def read_image_options(description):
    """Return the ImageOptions in what `describe_split` gave, or in a manifest's settings.

    What is missing, or everything (an older snapshot's), has its default.
    """
    known = {each.name for each in fields(ImageOptions)}
    given = {name: value for name, value in description.items() if name in known}
    if "background" in given:
        given["background"] = tuple(given["background"])
    return ImageOptions(**given)


def _options_of(split):
    return read_image_options(split.settings) if isinstance(split, Manifest) else _UNCONVERTED
