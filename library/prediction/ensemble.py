"""Combine several networks, several views of an image and a temperature into one network.

Views are test-time augmentation (the setting `tta`): the image, its mirror image, then crops.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import keras

from library.errors import CheckpointError
from library.models.scores import MULTI_LABEL, is_multi_label, to_probabilities
from library.saving.snapshots import Snapshot

# A function of images (n, height, width, channels) that keeps their shape.
View = Callable[[Any], Any]

# The smallest probability whose logarithm is finite in float32, with a margin.
_MIN_PROBABILITY = 1e-30
# The distance of the largest float32 below 1 from 1, rounded up.
_EPSILON = 1e-7
# The share of each edge that a crop takes: 224 of 256 pixels.
_CROP = 0.875


def combine_snapshots(
    snapshots: Sequence[Snapshot],
    temperatures: Sequence[float] | None = None,
    views: int = 1,
) -> Snapshot:
    """Return one snapshot whose probabilities are the mean over networks and views.

    Its network gives scores like any other: those whose probabilities are the mean. It has no
    metrics if several networks are combined, because none were measured; everything else is the
    first snapshot's. A single snapshot without views and temperature is returned as it is.

    Args:
        snapshots: Snapshots of the same classes, image shape and kind of labels.
        temperatures: What to divide each network's scores by; None: 1 for all.
        views: How many of the 12 views to average over.

    Raises:
        CheckpointError: The snapshots' classes, image shapes or kinds of labels differ.
    """
    first = snapshots[0]
    for other in snapshots[1:]:
        _check_compatible(first, other)
    temperatures = list(temperatures or [1.0] * len(snapshots))
    if len(snapshots) == views == 1 and temperatures == [1.0]:
        return first
    multi_label = is_multi_label(first.network)
    pixels = keras.Input(first.network.input_shape[1:])
    images = [view(pixels) for view in choose_views(views)]
    layers = [
        EnsembleMember(number, snapshot.network, temperature)
        for number, (snapshot, temperature) in enumerate(
            zip(snapshots, temperatures, strict=True), 1
        )
    ]
    scores = [layer(view) for layer in layers for view in images]
    mean = scores[0] if len(scores) == 1 else _mean_scores(scores, multi_label)
    name = MULTI_LABEL if multi_label else "scores"
    output = keras.layers.Activation("linear", name=name, dtype="float32")(mean)
    members = [member for snapshot in snapshots for member in snapshot.members or (snapshot,)]
    origin = {key: value for key, value in first.metrics.items() if key in ("epoch", "step")}
    return replace(
        first,
        network=keras.Model(pixels, output, name="combined"),
        metrics=origin if len(members) == 1 else {},
        members=tuple(members),
        views=views * first.views,
    )


def _mean_scores(scores: list[Any], multi_label: bool) -> Any:
    """Return the scores whose probabilities are the mean of those of several scores."""
    probabilities = [to_probabilities(each, multi_label=multi_label) for each in scores]
    mean = sum(probabilities[1:], probabilities[0]) / len(probabilities)
    if not multi_label:
        return keras.ops.log(keras.ops.maximum(mean, _MIN_PROBABILITY))
    mean = keras.ops.clip(mean, _MIN_PROBABILITY, 1 - _EPSILON)
    return keras.ops.log(mean) - keras.ops.log1p(-mean)


class EnsembleMember(keras.layers.Layer):
    """A network whose scores are divided by a temperature.

    It is wrapped in a layer because two networks may have the same name.
    """

    def __init__(self, number: int, network: keras.Model, temperature: float) -> None:
        super().__init__(name=f"member_{number}", dtype="float32")
        self.number = number
        self.network = network
        self.temperature = temperature
        self.built = True

    def call(self, images: Any) -> Any:
        """Return the scores of a batch of images."""
        return self.network(images, training=False) / self.temperature

    def compute_output_spec(self, images: Any) -> keras.KerasTensor:
        """Return the symbolic scores."""
        return keras.KerasTensor((images.shape[0], self.network.output_shape[-1]), "float32")


def _check_compatible(first: Snapshot, other: Snapshot) -> None:
    if first.classes != other.classes:
        different = sorted(set(first.classes) ^ set(other.classes)) or ["their order"]
        raise CheckpointError(
            f"an ensemble's snapshots must have the same classes; {other.folder} differs from "
            f"{first.folder} in {different[0]!r}"
        )
    if first.network.input_shape != other.network.input_shape:
        raise CheckpointError(
            "an ensemble's networks must take the same image shape; "
            f"{first.network.input_shape[1:]} differs from {other.network.input_shape[1:]}"
        )
    if first.fit != other.fit:
        raise CheckpointError(
            "an ensemble's snapshots must see the same pixels; "
            f"{other.folder} was trained with another fit or crop_fraction than {first.folder}"
        )
    if is_multi_label(first.network) != is_multi_label(other.network):
        raise CheckpointError("an ensemble's networks must all be multi-label, or none of them")


def _flip(images: Any) -> Any:
    """Mirror images left to right."""
    return images[:, :, ::-1]


def _crop(images: Any, top: float, left: float, is_flipped: bool) -> Any:
    """Crop 7/8 of each edge and resize it to the whole; `top` and `left` are 0 to 1."""
    _, height, width, _ = images.shape
    rows, columns = max(1, round(_CROP * height)), max(1, round(_CROP * width))
    y, x = round(top * (height - rows)), round(left * (width - columns))
    window = images[:, y : y + rows, x : x + columns]
    resized = keras.ops.image.resize(window, (height, width), data_format="channels_last")
    return _flip(resized) if is_flipped else resized


# The views in the order in which they are used: the image, its mirror image, then crops at the
# center, top left, bottom right, top right and bottom left, each followed by its mirror image.
VIEWS: list[View] = [
    lambda images: images,
    _flip,
    *(
        partial(_crop, top=top, left=left, is_flipped=is_flipped)
        for top, left in ((0.5, 0.5), (0, 0), (1, 1), (0, 1), (1, 0))
        for is_flipped in (False, True)
    ),
]


def choose_views(count: int) -> list[View]:
    """Return the first `count` of VIEWS."""
    if not 1 <= count <= len(VIEWS):
        raise ValueError(f"views must be 1 to {len(VIEWS)}, not {count}")
    return VIEWS[:count]
