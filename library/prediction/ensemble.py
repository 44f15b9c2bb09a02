"""Several networks, several views and a temperature become one network that gives scores."""

from dataclasses import replace
from functools import partial

import keras

from library.errors import CheckpointError
from library.models.scores import MULTI_LABEL, is_multi_label, to_probabilities

# Below it, float32 would have no logarithm to tell.
_LEAST = 1e-30
# Where one float32 is next to another just below 1.
_NEAR_ONE = 1e-7


def combine(snapshots, temperatures=None, views=1):
    """Return one Snapshot whose network gives the mean of all their probabilities.

    Each network's scores are divided by its temperature (None: all 1), for each of the first
    `views` views (see views.py). The network gives scores like any other: those whose probabilities
    are the mean. The Snapshot remembers its members and views, and tells no figures that were
    measured of these alone; all else is the first one's. One network, one view and no temperature
    stay what they are. Raises CheckpointError if the snapshots' classes or images differ.
    """
    first = snapshots[0]
    for each in snapshots[1:]:
        _check_likeness(first, each)
    temperatures = temperatures or [1.0] * len(snapshots)
    if len(snapshots) == views == 1 and temperatures == [1.0]:
        return first
    multi_label = is_multi_label(first.network)
    pixels = keras.Input(first.network.input_shape[1:])
    shown = [view(pixels) for view in find_views(views)]
    members = [
        Member(number, each.network, temperature)
        for number, (each, temperature) in enumerate(zip(snapshots, temperatures, strict=True), 1)
    ]
    scores = [member(images) for member in members for images in shown]
    combined = scores[0] if len(scores) == 1 else _mean(scores, multi_label)
    name = MULTI_LABEL if multi_label else "scores"
    output = keras.layers.Activation("linear", name=name, dtype="float32")(combined)
    whole = [each for one in snapshots for each in one.members or (one,)]
    metrics = {name: first.metrics[name] for name in ("epoch", "step") if name in first.metrics}
    return replace(
        first,
        network=keras.Model(pixels, output, name="combined"),
        metrics=metrics if len(whole) == 1 else {},
        members=tuple(whole),
        views=views * first.views,
    )


def _mean(scores, multi_label):
    """Return the scores whose probabilities are the mean of those of several scores."""
    parts = [to_probabilities(each, multi_label=multi_label) for each in scores]
    mean = sum(parts[1:], parts[0]) / len(parts)
    if not multi_label:
        return keras.ops.log(keras.ops.maximum(mean, _LEAST))
    mean = keras.ops.clip(mean, _LEAST, 1 - _NEAR_ONE)
    return keras.ops.log(mean) - keras.ops.log1p(-mean)


@keras.saving.register_keras_serializable("library")
class Member(keras.layers.Layer):
    """One of the networks: in a layer, because two of them may have the same name.

    Its scores are divided by the temperature.
    """

    def __init__(self, number, network, temperature):
        super().__init__(name=f"member_{number}", dtype="float32")
        self.number = number
        self.network = network
        self.temperature = temperature
        self.built = True

    def call(self, images):
        """Return the scores of a batch of images."""
        return self.network(images, training=False) / self.temperature

    def compute_output_spec(self, images):
        """Return the symbolic scores."""
        return keras.KerasTensor((images.shape[0], self.network.output_shape[-1]), "float32")


def _check_likeness(first, other):
    if first.classes != other.classes:
        ours, theirs = set(first.classes), set(other.classes)
        different = sorted(ours ^ theirs) or ["their order"]
        raise CheckpointError(
            f"an ensemble's snapshots must have the same classes; {other.folder} differs from "
            f"{first.folder} in {different[0]!r}"
        )
    if first.network.input_shape != other.network.input_shape:
        raise CheckpointError(
            "an ensemble's networks must take the same images: "
            f"{first.network.input_shape[1:]} is not {other.network.input_shape[1:]}"
        )
    if is_multi_label(first.network) != is_multi_label(other.network):
        raise CheckpointError(
            "an ensemble's networks must all give several classes an image, or all one"
        )


# How much of an edge a crop keeps: 7/8, as 224 of 256 pixels.
_KEPT = 0.875


def whole(images):
    """Return the images as they are."""
    return images


def flipped(images):
    """Return the images with left and right exchanged."""
    return images[:, :, ::-1]


def cropped(images, top, left):
    """Return 7/8 of each edge, enlarged again. `top` and `left`: 0 the one end, 1 the other."""
    _, height, width, _ = images.shape
    rows, columns = max(1, round(_KEPT * height)), max(1, round(_KEPT * width))
    y, x = round(top * (height - rows)), round(left * (width - columns))
    window = images[:, y : y + rows, x : x + columns]
    return keras.ops.image.resize(window, (height, width), data_format="channels_last")


def _flipped_crop(images, top, left):
    return flipped(cropped(images, top, left))


_PLACES = {
    "center": (0.5, 0.5),
    "top_left": (0, 0),
    "bottom_right": (1, 1),
    "top_right": (0, 1),
    "bottom_left": (1, 0),
}
# In the order in which they are taken: each crop is followed by its mirror image.
VIEWS = {"whole": whole, "flip": flipped}
for _name, (_top, _left) in _PLACES.items():
    VIEWS[f"{_name}_crop"] = partial(cropped, top=_top, left=_left)
    VIEWS[f"{_name}_crop_flip"] = partial(_flipped_crop, top=_top, left=_left)


def find_views(count):
    """Return the first `count` views, 1 to 12: the whole image, it mirrored, then crops."""
    if not 1 <= count <= len(VIEWS):
        raise ValueError(f"there are 1 to {len(VIEWS)} views, not {count}")
    return list(VIEWS.values())[:count]
