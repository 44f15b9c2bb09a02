import numpy as np
import pytest
import tensorflow as tf

from library.augmentation import geometry

IMAGE = tf.constant(np.random.default_rng(0).integers(0, 256, (11, 11, 3), np.uint8))
SEEDS = [tf.constant([1, each], tf.int64) for each in range(20)]


def test_a_quarter_turn_is_that_of_numpy():
    assert np.array_equal(geometry.warp(IMAGE, geometry.rotated(90.0)), np.rot90(IMAGE.numpy()))


def test_a_shift_moves_by_its_pixels_over_a_mirrored_border():
    moved = geometry.warp(IMAGE, geometry.translated(2.0, -1.0)).numpy()
    assert np.array_equal(moved[1:, :-2], IMAGE.numpy()[:-1, 2:])
    assert np.array_equal(moved[0], moved[1])


def test_a_slant_leaves_the_middle_row():
    slanted = geometry.warp(IMAGE, geometry.sheared(0.4, 0.0)).numpy()
    assert np.array_equal(slanted[5], IMAGE.numpy()[5])
    assert not np.array_equal(slanted[0], IMAGE.numpy()[0])


def test_changes_in_a_row_cost_one_interpolation():
    there = geometry.rotated(30.0)
    back = geometry.rotated(-30.0)
    assert np.array_equal(geometry.move(IMAGE, [lambda size: there, lambda size: back]), IMAGE)


def test_changes_are_made_in_their_order():
    turn, shift = geometry.rotated(90.0), geometry.translated(3.0, 0.0)
    together = geometry.move(IMAGE, [lambda size: turn, lambda size: shift]).numpy()
    one_by_one = geometry.warp(geometry.warp(IMAGE, turn), shift).numpy()
    assert np.array_equal(together[:, :8], one_by_one[:, :8])


@pytest.mark.parametrize(
    ("change", "strength", "limit"),
    [
        (geometry.rotation, 10, lambda m: abs(np.degrees(np.arctan2(m[1, 0], m[0, 0]))) <= 10),
        (geometry.shear, 0.3, lambda m: max(abs(m[0, 1]), abs(m[1, 0])) <= 0.3),
        (geometry.zoom, 0.2, lambda m: 0.8 <= m[0, 0] == m[1, 1] <= 1.2),
        (geometry.translation, 0.1, lambda m: abs(m[0, 2]) <= 3 and abs(m[1, 2]) <= 2),
    ],
)
def test_strengths_are_limits(change, strength, limit):
    matrices = [change((20.0, 30.0), strength, seed).numpy() for seed in SEEDS]
    assert all(limit(each.astype(float).round(5)) for each in matrices)
    assert len({each.tobytes() for each in matrices}) == len(SEEDS)
