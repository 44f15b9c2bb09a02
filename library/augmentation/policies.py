"""Augmentations that choose among others: RandAugment, TrivialAugment, AutoAugment, AugMix.

All take and return one uint8 image, shape (height, width, channels). An operation is a function of
(image, amount); a space maps operations to their largest amounts, so that a magnitude in [0, 1]
means the same for all of them.
"""

from collections.abc import Callable

import tensorflow as tf

from library.augmentation import color, geometry, pixelwise
from library.inputs.decoding import to_uint8

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _color(matrix_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Operation:
    return lambda image, amount: color.change_colors(
        image, [lambda mean: matrix_of(mean, 1 + amount)]
    )


def _translate(image: tf.Tensor, x: tf.Tensor | float, y: tf.Tensor | float) -> tf.Tensor:
    """Shift an image by shares of its width and its height."""
    height, width, _ = image.shape
    return geometry.warp(image, geometry.translation_matrix(x * width, y * height))


# The sign of the amount is random.
SIGNED: dict[str, Operation] = {
    "shear_x": lambda image, amount: geometry.warp(image, geometry.shear_matrix(amount, 0.0)),
    "shear_y": lambda image, amount: geometry.warp(image, geometry.shear_matrix(0.0, amount)),
    "translate_x": lambda image, amount: _translate(image, amount, 0.0),
    "translate_y": lambda image, amount: _translate(image, 0.0, amount),
    "rotate": lambda image, amount: geometry.warp(image, geometry.rotation_matrix(amount)),
    "brightness": _color(lambda mean, factor: color.scale_matrix(factor)),
    "color": _color(lambda mean, factor: color.saturation_matrix(factor)),
    "contrast": _color(color.contrast_matrix),
    "sharpness": lambda image, amount: pixelwise.sharpen(image, 1 + amount),
}
UNSIGNED: dict[str, Operation] = {
    "posterize": pixelwise.posterize,
    "solarize": pixelwise.solarize,
    "autocontrast": lambda image, amount: pixelwise.autocontrast(image),
    "equalize": lambda image, amount: pixelwise.equalize(image),
    "invert": lambda image, amount: pixelwise.invert(image),
    "identity": lambda image, amount: image,
}
_SHEAR, _TRANSLATE = ("shear_x", "shear_y"), ("translate_x", "translate_y")
_ENHANCE = ("brightness", "color", "contrast", "sharpness")
# Cubuk et al. 2019, arXiv 1909.13719; the ranges are those of torchvision. The order counts: an
# operation is drawn by its position.
RAND_AUGMENT: dict[str, float] = {
    "identity": 0,
    **dict.fromkeys(_SHEAR, 0.3),
    **dict.fromkeys(_TRANSLATE, 0.45),
    "rotate": 30,
    **dict.fromkeys(_ENHANCE, 0.9),
    "posterize": 4,
    "solarize": 255,
    "autocontrast": 0,
    "equalize": 0,
}
# Müller and Hutter 2021, arXiv 2103.10158: the same operations, over wider ranges.
TRIVIAL_AUGMENT: dict[str, float] = {
    **RAND_AUGMENT,
    **dict.fromkeys(_SHEAR, 0.99),
    **dict.fromkeys(_TRANSLATE, 0.14),  # 32 pixels of 224
    "rotate": 135,
    **dict.fromkeys(_ENHANCE, 0.99),
    "posterize": 6,
}
AUTO_AUGMENT: dict[str, float] = {**RAND_AUGMENT, "invert": 0}
# Hendrycks et al. 2019, arXiv 1912.02781: nothing that the usual tests of robustness contain.
AUG_MIX: dict[str, float] = {
    **dict.fromkeys(_SHEAR, 0.3),
    **dict.fromkeys(_TRANSLATE, 0.33),
    "rotate": 30,
    "posterize": 4,
    "solarize": 255,
    "autocontrast": 0,
    "equalize": 0,
}
# Cubuk et al. 2018, arXiv 1805.09501: the policy found for ImageNet. Pairs of (operation,
# probability in tenths, magnitude in ninths).
AUTO_AUGMENT_PAIRS = (
    (("posterize", 4, 8), ("rotate", 6, 9)),
    (("solarize", 6, 5), ("autocontrast", 6, 0)),
    (("equalize", 8, 0), ("equalize", 6, 0)),
    (("posterize", 6, 7), ("posterize", 6, 6)),
    (("equalize", 4, 0), ("solarize", 2, 4)),
    (("equalize", 4, 0), ("rotate", 8, 8)),
    (("solarize", 6, 3), ("equalize", 6, 0)),
    (("posterize", 8, 5), ("equalize", 10, 0)),
    (("rotate", 2, 3), ("solarize", 6, 8)),
    (("equalize", 6, 0), ("posterize", 4, 6)),
    (("rotate", 8, 8), ("color", 4, 0)),
    (("rotate", 4, 9), ("equalize", 6, 0)),
    (("equalize", 0, 0), ("equalize", 8, 0)),
    (("invert", 6, 0), ("equalize", 10, 0)),
    (("color", 6, 4), ("contrast", 10, 8)),
    (("rotate", 8, 8), ("color", 10, 2)),
    (("color", 8, 8), ("solarize", 8, 7)),
    (("sharpness", 4, 7), ("invert", 6, 0)),
    (("shear_x", 6, 5), ("equalize", 10, 0)),
    (("color", 4, 0), ("equalize", 6, 0)),
    (("equalize", 4, 0), ("solarize", 2, 4)),
    (("solarize", 6, 5), ("autocontrast", 6, 0)),
    (("invert", 6, 0), ("equalize", 10, 0)),
    (("color", 6, 4), ("contrast", 10, 8)),
    (("equalize", 8, 0), ("equalize", 6, 0)),
)


def rand_augment(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Apply two operations chosen at random, at magnitude `strength` of 30."""
    for each in tf.unstack(tf.random.split(seed, 2)):
        choice, sign = tf.unstack(tf.random.split(each, 2))
        index = _uniform_index(choice, len(RAND_AUGMENT))
        image = _apply(image, RAND_AUGMENT, index, strength / 30, sign)
    return image


def trivial_augment(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Apply one operation chosen at random, at a magnitude drawn from 0 to `strength`."""
    choice, sign, magnitude = tf.unstack(tf.random.split(seed, 3))
    index = _uniform_index(choice, len(TRIVIAL_AUGMENT))
    magnitude = tf.random.stateless_uniform([], magnitude, 0.0, strength)
    return _apply(image, TRIVIAL_AUGMENT, index, magnitude, sign)


def auto_augment(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Apply one of 25 pairs of operations; `strength` scales their probabilities."""
    names = list(AUTO_AUGMENT)
    indices = tf.constant([[names.index(each[0]) for each in pair] for pair in AUTO_AUGMENT_PAIRS])
    chances = tf.constant([[each[1] / 10 for each in pair] for pair in AUTO_AUGMENT_PAIRS])
    magnitudes = tf.constant([[each[2] / 9 for each in pair] for pair in AUTO_AUGMENT_PAIRS])
    choice, *seeds = tf.unstack(tf.random.split(seed, 3))
    pair = _uniform_index(choice, len(AUTO_AUGMENT_PAIRS))
    for number, each in enumerate(seeds):
        chance, sign = tf.unstack(tf.random.split(each, 2))
        happens = tf.random.stateless_uniform([], chance) < strength * chances[pair, number]
        index = tf.where(happens, indices[pair, number], names.index("identity"))
        image = _apply(image, AUTO_AUGMENT, index, magnitudes[pair, number], sign)
    return image


def aug_mix(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """Mix the image with three chains of one to three operations, each up to `strength` of 10."""
    chains_seed, weights_seed, share_seed = tf.unstack(tf.random.split(seed, 3))
    chains = tf.map_fn(
        lambda each: tf.cast(_chain(image, strength / 10, each), tf.float32),
        tf.random.split(chains_seed, 3),
        fn_output_signature=tf.TensorSpec(image.shape, tf.float32),
    )
    # Uniform on the simplex: exponential draws, divided by their sum.
    weights = -tf.math.log(tf.random.stateless_uniform([3], weights_seed, 1e-6, 1.0))
    mixed = tf.tensordot(weights / tf.reduce_sum(weights), chains, 1)
    share = tf.random.stateless_uniform([], share_seed)
    return to_uint8((1 - share) * tf.cast(image, tf.float32) + share * mixed)


def _chain(image, largest, seed):
    depth_seed, *seeds = tf.unstack(tf.random.split(seed, 4))
    depth = 1 + _uniform_index(depth_seed, 3)
    seeds = tf.stack(seeds)

    def step(number: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        choice, magnitude, sign = tf.unstack(tf.random.split(seeds[number], 3))
        magnitude = tf.random.stateless_uniform([], magnitude, 0.0, largest)
        index = _uniform_index(choice, len(AUG_MIX))
        return number + 1, _apply(image, AUG_MIX, index, magnitude, sign)

    return tf.while_loop(lambda number, _: number < depth, step, (0, image))[1]


def _apply(image, space, index, magnitude, seed):
    """Apply the operation at position `index` of a space, with a random sign."""
    sign = tf.where(tf.random.stateless_uniform([], seed) < 0.5, -1.0, 1.0)

    def branch(name: str, largest: float) -> Callable[[], tf.Tensor]:
        if name in SIGNED:
            return lambda: SIGNED[name](image, sign * magnitude * largest)
        return lambda: UNSIGNED[name](image, magnitude * largest)

    return tf.switch_case(index, [branch(name, largest) for name, largest in space.items()])


def _uniform_index(seed, count):
    return tf.random.stateless_uniform([], seed, 0, count, tf.int32)
