import numpy as np
import pytest
import tensorflow as tf

from library.augmentation.mixing import cutmix, mixup

COUNT = 9
# Each image is of one brightness, its number times 20.
IMAGES = tf.cast(tf.range(COUNT)[:, None, None, None] * tf.ones([1, 10, 12, 1], tf.int32), tf.uint8)
IMAGES *= tf.constant(20, tf.uint8)
TARGETS = tf.one_hot(tf.range(COUNT), COUNT)
SEEDS = tf.constant([[3, each] for each in range(COUNT)], tf.int64)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_weights_labels_like_pixels(mix):
    images, targets = mix(IMAGES, TARGETS, 1.0, SEEDS)
    means = images.numpy().mean((1, 2, 3))
    expected = targets.numpy() @ (np.arange(COUNT) * 20)
    assert np.allclose(means, expected, atol=0.51)
    assert np.allclose(targets.numpy().sum(1), 1)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_mixing_pairs_neighbors_both_ways(mix):
    _, targets = mix(IMAGES, TARGETS, 1.0, SEEDS)
    targets = targets.numpy()
    assert np.allclose(targets.sum(0), 1)
    for first in range(0, COUNT - 1, 2):
        pair = targets[first : first + 2, first : first + 2]
        assert np.allclose(pair.sum(), 2)
        assert np.allclose(pair, pair.T)
    assert targets[-1, -1] == 1
    assert len({round(float(each), 4) for each in np.diag(targets)}) > 3


def test_mixup_of_half_a_batch_equals_the_whole():
    whole, _ = mixup(IMAGES, TARGETS, 1.0, SEEDS)
    part, _ = mixup(IMAGES[4:8], TARGETS[4:8], 1.0, SEEDS[4:8])
    assert np.array_equal(whole[4:8], part)


def test_cutmix_replaces_one_window():
    images, targets = cutmix(IMAGES, TARGETS, 1.0, SEEDS)
    for number in range(0, COUNT - 1, 2):
        other = images.numpy()[number, ..., 0] == 20 * (number + 1)
        rows, columns = other.any(1), other.any(0)
        assert np.array_equal(other, rows[:, None] & columns)
        assert np.isclose(other.mean(), targets[number, number + 1], atol=1e-6)


def test_mixing_an_empty_batch():
    for mix in (mixup, cutmix):
        images, targets = mix(IMAGES[:0], TARGETS[:0], 1.0, SEEDS[:0])
        assert images.shape == (0, 10, 12, 1)
        assert targets.shape == (0, COUNT)
