"""Words such as `flip` or `brightness=0.2` become one function of an example's seed.

What an augmentation acts on determines when it is applied: first the crop, before decoding; then
those of single images, in the order in which they are written; then those of batches. Neighbors
that change colors, or coordinates, are fused.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import tensorflow as tf

from library.augmentation.color import change_colors, color_matrix, multiply_colors
from library.augmentation.geometry import change_geometry, geometry_matrix, warp_batch
from library.errors import SettingsError
from library.files import sha256_of
from library.inputs.decoding import Crop
from library.messages import choose

# What an augmentation can act on, in the words of docs/augmentations.md.
CROP, IMAGE, COLOR = "the window to decode", "an image", "colors"
GEOMETRIC, BATCH = "coordinates", "a batch"


@dataclass(frozen=True)
class Augmentation:
    """One augmentation of a registry.

    Attributes:
        function: What it takes and returns depends on `acts_on`:
            CROP: (shape int32 (height, width, channels), strength, seed) → the window to decode,
                int32 (y, x, height, width).
            IMAGE: (uint8 (height, width, channels), strength, seed) → the same.
            COLOR: see library/augmentation/color.py.
            GEOMETRIC: see library/augmentation/geometry.py.
            BATCH: see library/augmentation/mixing.py.
        strength: The strength of the bare name.
        largest: The largest strength.
        acts_on: One of the five above.
        is_whole: Whether the strength must be a whole number.
        needs_color: Whether images of one channel stay as they are.
        geometry: For an IMAGE that moves whole pixels: the same as a function for GEOMETRIC, by
            which whole batches are changed.
    """

    function: Callable[..., Any]
    strength: float
    largest: float
    acts_on: str = IMAGE
    is_whole: bool = False
    needs_color: bool = False
    geometry: Callable[..., Any] | None = None


@dataclass(frozen=True)
class _Step:
    """One of the chosen augmentations: its word and its position among them."""

    position: int
    word: str
    augmentation: Augmentation
    strength: float

    @property
    def geometry(self) -> Callable[..., Any] | None:
        """The change as a function of coordinates, if it is one."""
        own = self.augmentation
        return own.function if own.acts_on == GEOMETRIC else own.geometry

    def bind(
        self, seeds: tf.Tensor, function: Callable[..., Any] | None = None
    ) -> Callable[[Any], Any]:
        """Return the function (None: its own) with strength and seed filled in."""
        function, seed = function or self.augmentation.function, seeds[self.position]
        return lambda subject: function(subject, self.strength, seed)


class Augmentations:
    """The chosen augmentations. Raises SettingsError, or ChoiceError for an unknown name.

    `words` are names of the registry, each with or without `=strength`.

    Attributes:
        has_crop: Whether a window of each image is chosen before it is decoded.
        has_mixing: Whether images of a batch are mixed, so that labels are shares of classes.
        has_more_than_crop: Whether images are changed, or mixed, after they are decoded.
    """

    def __init__(self, words: Sequence[str], registry: Mapping[str, Augmentation]) -> None:
        self._registry = registry
        self._steps = [_parse(*each, registry) for each in enumerate(words)]
        self._crops = [each for each in self._steps if each.augmentation.acts_on == CROP]
        self._mixes = [each for each in self._steps if each.augmentation.acts_on == BATCH]
        if len(self._crops) > 1:
            names = sorted(name for name, each in registry.items() if each.acts_on == CROP)
            raise SettingsError(f"augmentations: at most one of {', '.join(names)}")
        self.has_crop = bool(self._crops)
        self.has_mixing = bool(self._mixes)
        self.has_more_than_crop = len(self._steps) > len(self._crops)

    def without_effect(self, channels: int) -> list[str]:
        """Return the words that leave every image of that many channels as it is."""
        return [
            each.word for each in self._steps if each.augmentation.needs_color and channels == 1
        ]

    def crop_only(self) -> "Augmentations":
        """Return the crop alone, without what changes the images."""
        return Augmentations([each.word for each in self._crops], self._registry)

    @property
    def fingerprint(self) -> tuple:
        """The words, their strengths, and hashes of the code behind them."""
        modules = [sys.modules[each.augmentation.function.__module__] for each in self._steps]
        return (
            tuple(each.word for each in self._steps),
            tuple(each.strength for each in self._steps),
            tuple(sha256_of(str(each.__file__)) for each in modules),
        )

    def seeds(self, seed: tf.Tensor) -> tf.Tensor:
        """Return one seed per augmentation, int64 (n, 2), from an example's seed, int64 (2,)."""
        # In one op, because each costs as much as changing some pixels.
        return tf.random.split(seed, len(self._steps))

    def crop(self, seeds: tf.Tensor) -> Crop | None:
        """Return the function that chooses the window to decode; None for the whole image."""
        return self._crops[0].bind(seeds) if self._crops else None

    def apply(self, image: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Apply the augmentations of single images."""
        steps = [each for each in self._steps if each.augmentation.acts_on not in (CROP, BATCH)]
        for acts_on, group in groupby(steps, lambda each: each.augmentation.acts_on):
            # At strength 0, nothing changes.
            changes = [each.bind(seeds) for each in group if each.strength]
            if changes and acts_on == COLOR:
                image = change_colors(image, changes)
            elif changes and acts_on == GEOMETRIC:
                image = change_geometry(image, changes)
            else:
                for change in changes:
                    image = change(image)
        return image

    def check_batched(self) -> None:
        """Raise SettingsError if one of the augmentations can't be made for a whole batch."""
        for each in self._steps:
            if not (each.geometry or each.augmentation.acts_on in (CROP, COLOR)):
                raise SettingsError(
                    f"augment_on_device: {each.word} can't be made on the device: remove one of "
                    "them (crops, flips, colors and coordinates can be)"
                )

    def draw(self, image: tf.Tensor, seeds: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what `apply_drawn` needs to know of one image, instead of applying it now.

        Returns:
            `geometry`, float32 (3, 3), and `colors`, float32 (4, 4), for the augmentations that
            there are.
        """
        steps = [each for each in self._steps if each.strength]
        moves = [each.bind(seeds, each.geometry) for each in steps if each.geometry]
        colors = [each.bind(seeds) for each in steps if each.augmentation.acts_on == COLOR]
        drawn = {}
        if moves:
            drawn["geometry"] = geometry_matrix(image.shape, moves)
        if colors:
            drawn["colors"] = color_matrix(image, colors)
        return drawn

    @staticmethod
    def apply_drawn(images: tf.Tensor, drawn: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Apply what was drawn for each image of a batch: first geometry, then colors.

        In this order whatever the words' is: pixels that are moved are weighted means, and color
        changes are affine, so only rounding and clipping differ. Contrast spreads from the mean
        color of the image as it was decoded.

        Args:
            images: uint8 (batch, height, width, channels).
            drawn: The batched results of `draw`.

        Returns:
            float32 (batch, height, width, channels), whole numbers in [0, 255].
        """
        pixels = tf.cast(images, tf.float32)
        if "geometry" in drawn:
            pixels = warp_batch(pixels, drawn["geometry"])
        if "colors" in drawn:
            pixels = multiply_colors(pixels, drawn["colors"])
        # Not the op of `to_uint8`, which only CPUs have.
        return tf.clip_by_value(tf.round(pixels), 0.0, 255.0)

    def mix(
        self, images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Apply the augmentations of batches; `seeds` are int64 (batch, n, 2)."""
        for each in self._mixes:
            if each.strength:
                function, own_seeds = each.augmentation.function, seeds[:, each.position]
                images, targets = function(images, targets, each.strength, own_seeds)
        return images, targets


def _parse(position: int, word: str, registry: Mapping[str, Augmentation]) -> _Step:
    name, _, text = word.partition("=")
    found = choose("augmentation", name.strip(), registry)
    try:
        strength = float(text) if text else found.strength
    except ValueError:
        strength = math.nan
    is_fraction = found.is_whole and strength % 1
    if is_fraction or not 0 <= strength <= found.largest:
        kind = "a whole strength" if found.is_whole else "a strength"
        raise SettingsError(f"augmentations: {word!r} needs {kind} from 0 to {found.largest:g}")
    return _Step(position, word, found, strength)
