"""Mixtures of two images of a batch, whose labels mix alike: MixUp and CutMix.

Neighbors are mixed, the first with the second, the third with the fourth: the batch is shuffled
already. Both take (images uint8 (n, height, width, channels), targets float32 (n, classes),
strength, seeds int64 (n, 2)) and give images and targets of the same shapes. Each pair is mixed
both ways, so that every example counts once in all; the last of an odd number stays alone.
"""

import tensorflow as tf

from library.inputs.decoding import to_uint8


def mixup(images, targets, strength, seeds):
    """Lay one image over the other, its share drawn from Beta(strength, strength).

    Zhang et al. 2017, arXiv 1710.09412.
    """
    partners, seeds = _pairs(seeds)
    share = _per_pair(lambda seed: _beta(strength, seed), seeds)
    weight = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
    pixels = tf.cast(images, tf.float32)
    pixels = weight * pixels + (1 - weight) * tf.gather(pixels, partners)
    return to_uint8(pixels), _mix_targets(targets, partners, share)


def cutmix(images, targets, strength, seeds):
    """Replace a window by the other image's; its area is drawn from Beta(strength, strength).

    Yun et al. 2019, arXiv 1905.04899. Labels mix as the areas that are seen.
    """
    partners, seeds = _pairs(seeds)
    _, height, width, _ = images.shape

    def window(seed):
        share_seed, place_seed = tf.unstack(_split(seed, 2))
        edge = tf.sqrt(1 - _beta(strength, share_seed))
        return tf.concat([tf.random.stateless_uniform([2], place_seed), [edge]], 0)

    # Of no pairs, the shape would be lost.
    y, x, edge = tf.unstack(tf.reshape(_per_pair(window, seeds), [-1, 3]), axis=1)
    inside = _between(y, edge, height)[:, :, tf.newaxis] & _between(x, edge, width)[:, tf.newaxis]
    share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), [1, 2])
    mixed = tf.where(inside[..., tf.newaxis], tf.gather(images, partners), images)
    return mixed, _mix_targets(targets, partners, share)


def _pairs(seeds):
    """Return each example's partner, and for each the seed of its pair's first."""
    numbers = tf.range(tf.shape(seeds)[0])
    partners = tf.minimum(tf.bitwise.bitwise_xor(numbers, 1), tf.shape(seeds)[0] - 1)
    return partners, tf.gather(seeds, tf.minimum(numbers, partners))


def _per_pair(draw, seeds):
    return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


def _beta(strength, seed):
    """Draw from Beta(strength, strength), as the share of one of two Gamma draws; 1 at 0."""
    if strength == 0:
        return tf.constant(1.0)
    draws = tf.random.stateless_gamma([2], seed, strength)
    # Small strengths can draw twice nothing at all.
    return tf.math.divide_no_nan(draws[0], tf.reduce_sum(draws))


def _between(center, edge, size):
    """Return bool (n, size): which rows lie in the window, cut at the border."""
    rows = (tf.range(size, dtype=tf.float32) + 0.5) / size
    return tf.abs(rows - center[:, tf.newaxis]) < edge[:, tf.newaxis] / 2


def _mix_targets(targets, partners, share):
    share = share[:, tf.newaxis]
    return share * targets + (1 - share) * tf.gather(targets, partners)


def _split(seed, count):
    return tf.random.stateless_uniform([count, 2], seed, None, None, tf.int64)
