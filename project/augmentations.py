"""Random changes to training images: one small stateless function each, chosen by name in YAML.

`augmentations: [distorted_crop, flip, brightness=0.2]` applies them in that order. Every function
is a pure function of its seed, so an epoch can be repeated, and resumed in the middle, exactly.

A crop is special: it chooses a window before the image is decoded, so that only the window is.
The others take and give one image: uint8 pixels in [0, 255], shape (height, width, channels).
"""

from typing import NamedTuple

import tensorflow as tf

from library.choices import choose
from library.errors import SettingsError


def distorted_crop(shape, strength, seed):
    """Choose a window of 1 - strength/2 to 1 of the area and of aspect ratio 0.5 to 1.5.

    Takes the image's shape, int32 (height, width, channels). Gives the window, int32
    (y, x, height, width). Strength in [0, 1]; the forerunner's range is strength 1.
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros([0, 0, 4], tf.float32),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(1 - 0.5 * strength, 1 + 0.5 * strength),
        area_range=(1 - 0.5 * strength, 1.0),
        use_image_if_no_bounding_boxes=True,
    )
    return tf.stack([begin[0], begin[1], size[0], size[1]])


def pad_and_crop(image, strength, seed):
    """Shift by up to `strength` whole pixels each way, over a mirrored border.

    The mirror, unlike zeros, makes no edge that a network could learn to look for.
    """
    pixels = int(strength)
    padded = tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]], "SYMMETRIC")
    return tf.image.stateless_random_crop(padded, tf.shape(image), seed)


def flip(image, strength, seed):
    """Mirror left and right, with probability strength/2: strength 1 makes both equally likely."""
    mirrored = tf.random.stateless_uniform([], seed) < 0.5 * strength
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)


def brightness(image, strength, seed):
    """Add one number to all pixels, up to `strength` of the full range each way."""
    shift = tf.random.stateless_uniform([], seed, -255.0 * strength, 255.0 * strength)
    return tf.saturate_cast(tf.round(tf.cast(image, tf.float32) + shift), tf.uint8)


class Augmentation(NamedTuple):
    """One augmentation, the strength that its bare name means, and the largest that makes sense."""

    function: object
    strength: float
    largest: float


CROPS = {
    "distorted_crop": Augmentation(distorted_crop, strength=1.0, largest=1.0),
}
AUGMENTATIONS = {
    "pad_and_crop": Augmentation(pad_and_crop, strength=4, largest=64),
    "flip": Augmentation(flip, strength=1.0, largest=1.0),
    "brightness": Augmentation(brightness, strength=0.125, largest=1.0),
}


def choose_augmentations(words):
    """Turn words such as `flip` or `brightness=0.2` into (crop or None, list of the others).

    Each is a function of (shape or image, seed). Raises SettingsError for an unknown name, a
    strength out of range, or two crops.
    """
    crops, others = [], []
    for word in words:
        name, _, text = word.partition("=")
        known = choose("augmentation", name.strip(), CROPS | AUGMENTATIONS)
        strength = _strength(word, text, known)
        (crops if name.strip() in CROPS else others).append(_with_strength(known, strength))
    if len(crops) > 1:
        raise SettingsError(f"augmentations: at most one of {', '.join(sorted(CROPS))}")
    return (crops[0] if crops else None), others


def augment(image, augmentations, seed):
    """Apply the augmentations in order, each with a seed of its own derived from `seed`."""
    for position, apply in enumerate(augmentations):
        # Folding in the position: equal seeds would tie a flip to a shift.
        image = apply(image, tf.random.experimental.stateless_fold_in(seed, position))
    return image


def _strength(word, text, known):
    if not text:
        return known.strength
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not 0 <= strength <= known.largest:
        raise SettingsError(f"augmentations: {word!r} wants a strength from 0 to {known.largest:g}")
    return strength


def _with_strength(known, strength):
    return lambda subject, seed: known.function(subject, strength, seed)
