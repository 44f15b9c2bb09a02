"""Mixtures of two images of a batch, whose labels are mixed alike: MixUp and CutMix.

Neighbors are mixed, the first with the second, the third with the fourth: the batch is shuffled
already. Both functions take (images uint8 (n, height, width, channels), targets float32
(n, classes), strength, seeds int64 (n, 2)) and return images and targets of the same shapes. Each
pair is mixed both ways, so that every example has the same total weight; the last of an odd number
stays as it is.
"""

from collections.abc import Callable

import tensorflow as tf

from library.inputs.decoding import to_uint8

Batch = tuple[tf.Tensor, tf.Tensor]


def mixup(images: tf.Tensor, targets: tf.Tensor, strength: float, seeds: tf.Tensor) -> Batch:
    """Blend one image with the other, its share drawn from Beta(strength, strength).

    Zhang et al. 2017, arXiv 1710.09412.
    """
    partners, seeds = _pairs(seeds)
    share = _per_example(lambda seed: _draw_beta(strength, seed), seeds)
    weight = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
    pixels = tf.cast(images, tf.float32)
    pixels = weight * pixels + (1 - weight) * tf.gather(pixels, partners)
    return to_uint8(pixels), _mix_targets(targets, partners, share)


def cutmix(images: tf.Tensor, targets: tf.Tensor, strength: float, seeds: tf.Tensor) -> Batch:
    """Replace a window by the other image's; its area is drawn from Beta(strength, strength).

    Yun et al. 2019, arXiv 1905.04899. Labels are mixed in proportion to the visible areas.
    """
    partners, seeds = _pairs(seeds)
    _, height, width, _ = images.shape

    def draw_window(seed: tf.Tensor) -> tf.Tensor:
        share_seed, center_seed = tf.unstack(tf.random.split(seed, 2))
        edge = tf.sqrt(1 - _draw_beta(strength, share_seed))
        return tf.concat([tf.random.stateless_uniform([2], center_seed), [edge]], 0)

    # Reshaped, because the shape of a window is lost if there are none.
    windows = tf.reshape(_per_example(draw_window, seeds), [-1, 3])
    y, x, edge = tf.unstack(windows, axis=1)
    inside = _between(y, edge, height)[:, :, tf.newaxis] & _between(x, edge, width)[:, tf.newaxis]
    share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), [1, 2])
    mixed = tf.where(inside[..., tf.newaxis], tf.gather(images, partners), images)
    return mixed, _mix_targets(targets, partners, share)


def _pairs(seeds):
    """Return the position of each example's partner, and for each the seed of its pair's first."""
    positions = tf.range(tf.shape(seeds)[0])
    partners = tf.minimum(tf.bitwise.bitwise_xor(positions, 1), tf.shape(seeds)[0] - 1)
    return partners, tf.gather(seeds, tf.minimum(positions, partners))


def _per_example(draw: Callable[[tf.Tensor], tf.Tensor], seeds: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


def _draw_beta(strength, seed):
    """Draw from Beta(strength, strength), as the share of one of two Gamma draws."""
    draws = tf.random.stateless_gamma([2], seed, strength)
    # With a small strength, both draws can underflow to zero.
    return tf.math.divide_no_nan(draws[0], tf.reduce_sum(draws))


def _between(center, edge, size):
    """Return bool (n, size): which rows lie in the window, clipped at the border."""
    rows = (tf.range(size, dtype=tf.float32) + 0.5) / size
    return tf.abs(rows - center[:, tf.newaxis]) < edge[:, tf.newaxis] / 2


def _mix_targets(targets, partners, share):
    share = share[:, tf.newaxis]
    return share * targets + (1 - share) * tf.gather(targets, partners)
