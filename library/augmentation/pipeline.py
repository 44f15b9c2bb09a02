"""Words such as `flip` or `brightness=0.2` become one function of an example's seed.

What an augmentation acts on decides when it is applied: on the window to decode, then on images,
in the order in which they are written, then on the batch. Neighbors that change colors, or
places, are done in one go.
"""

import sys
from itertools import groupby
from typing import NamedTuple

import tensorflow as tf

from library.augmentation.color import change_colors
from library.augmentation.geometry import move
from library.errors import SettingsError
from library.files import sha256_of
from library.messages import choose

CROP, IMAGE, COLOR, GEOMETRIC, BATCH = "window", "image", "colors", "places", "batch"


class Augmentation(NamedTuple):
    """One augmentation, the strength that its bare name means, and the largest that makes sense.

    What the function takes and gives depends on what it acts on:

    IMAGE    (uint8 (height, width, channels), strength, seed) → the same
    COLORS  see colors.py
    PLACES   see geometry.py
    WINDOW   (int32 (height, width, channels), strength, seed) → int32 (y, x, height, width)
    BATCH    see mixing.py

    Where `is_whole`, its strength has no fractions; where `needs_color`, gray stays as it is.
    """

    function: object
    strength: float
    largest: float
    acts_on: str = IMAGE
    is_whole: bool = False
    needs_color: bool = False


class _Step(NamedTuple):
    position: int
    function: object
    strength: float
    acts_on: str
    needs_color: bool


class Augmentations:
    """The chosen ones. Raises SettingsError, or ChoiceError for an unknown name.

    `words` are names of the registry `known`, each with `=strength` or without.
    """

    def __init__(self, words, known):
        self._words = tuple(words)
        self._known = known
        self._steps = [_step(*each, known) for each in enumerate(words)]
        self._windows = [each for each in self._steps if each.acts_on == CROP]
        self._batch = [each for each in self._steps if each.acts_on == BATCH]
        if len(self._windows) > 1:
            names = [name for name in known if known[name].acts_on == CROP]
            raise SettingsError(f"augmentations: at most one of {', '.join(sorted(names))}")

    @property
    def has_crop(self):
        """Whether a window of each image is chosen before it is decoded."""
        return bool(self._windows)

    @property
    def has_more_than_crop(self):
        """Whether images are changed, or mixed, once they are decoded."""
        return len(self._steps) > len(self._windows)

    @property
    def has_mixing(self):
        """Whether images of a batch are mixed, so that labels are shares of classes."""
        return bool(self._batch)

    def without_effect(self, channels):
        """Return the words of those that leave all images of so many channels as they are."""
        idle = [each for each in self._steps if each.needs_color and channels == 1]
        return [self._words[each.position] for each in idle]

    def crop_only(self):
        """Return the window alone, without what changes the images."""
        words = [self._words[each.position] for each in self._windows]
        return Augmentations(words, self._known)

    @property
    def fingerprint(self):
        """Return a hash of the augmentations, their strengths and their code."""
        functions = [each.function for each in self._steps]
        code = [sha256_of(sys.modules[each.__module__].__file__) for each in functions]
        return self._words, tuple(each.strength for each in self._steps), tuple(code)

    def seeds(self, seed):
        """Return one seed for each augmentation, int64 (n, 2), from an example's, int64 (2,)."""
        # At once, because each operation costs as much as some pixels.
        return tf.random.stateless_uniform([len(self._steps), 2], seed, None, None, tf.int64)

    def crop(self, seeds):
        """Return the function from an image's shape to the window to decode; None for all of it."""
        for step in self._windows:
            return lambda shape: step.function(shape, step.strength, seeds[step.position])
        return None

    def apply(self, image, seeds):
        """Apply those that act on one image."""
        inner = [each for each in self._steps if each.acts_on not in (CROP, BATCH)]
        for acts_on, steps in groupby(inner, lambda each: each.acts_on):
            changes = [_bound(each, seeds) for each in steps]
            if acts_on == COLOR:
                image = change_colors(image, changes)
            elif acts_on == GEOMETRIC:
                image = move(image, changes)
            else:
                for change in changes:
                    image = change(image)
        return image

    def mix(self, images, targets, seeds):
        """Apply those that act on a batch. `seeds` are int64 (batch, n, 2)."""
        for step in self._batch:
            images, targets = step.function(images, targets, step.strength, seeds[:, step.position])
        return images, targets


def _bound(step, seeds):
    return lambda subject: step.function(subject, step.strength, seeds[step.position])


def _step(position, word, known):
    name, _, text = word.partition("=")
    chosen = choose("augmentation", name.strip(), known)
    strength = chosen.strength if not text else _number(text)
    is_fraction = chosen.is_whole and strength % 1
    if is_fraction or not 0 <= strength <= chosen.largest:
        kind = "whole strength" if chosen.is_whole else "strength"
        raise SettingsError(f"augmentations: {word!r} wants a {kind} from 0 to {chosen.largest:g}")
    return _Step(position, chosen.function, strength, chosen.acts_on, chosen.needs_color)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return float("nan")
