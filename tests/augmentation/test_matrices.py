import numpy as np
import pytest
import tensorflow as tf

from library.augmentation import color, geometry

COLORS = tf.constant(np.random.default_rng(0).integers(60, 190, (40, 34, 3), np.uint8))
SEED = tf.constant([1, 2], tf.int64)


def painted(*matrices, image=COLORS):
    return color.change_colors(image, [lambda mean, each=each: each for each in matrices])


def near(image, expected, tolerance=1):
    return np.abs(image.numpy().astype(int) - np.asarray(expected).astype(int)).max() <= tolerance


def test_color_matrices():
    pixels = COLORS.numpy().astype(float)
    gray = pixels @ [0.299, 0.587, 0.114]
    assert near(painted(color.brightness_matrix(12.0)), pixels + 12)
    assert near(painted(color.scale_matrix(0.5)), pixels / 2)
    assert near(painted(color.saturation_matrix(0.0)), np.repeat(gray[..., np.newaxis], 3, 2))
    assert near(
        painted(color.saturation_matrix(1.5)), (1.5 * pixels - 0.5 * gray[..., None]).clip(0, 255)
    )
    mean = color.mean_color(COLORS)
    spread = painted(color.contrast_matrix(mean, 1.4))
    assert near(spread, (1.4 * pixels - 0.4 * gray.mean()).clip(0, 255), 3)


def test_hue_keeps_brightness_and_returns_after_a_full_turn():
    turned = color.change_colors(COLORS, [lambda mean: color.hue(mean, 0.2, SEED)])
    gray = [0.299, 0.587, 0.114]
    assert np.abs(turned.numpy() @ gray - COLORS.numpy() @ gray).mean() < 1
    assert not near(turned, COLORS, 5)
    third = color.hue_matrix(2 * np.pi / 3)
    assert np.allclose(np.linalg.matrix_power(third, 3), np.eye(4), atol=1e-5)


def test_fused_color_changes_equal_separate_ones_without_clipping():
    together = painted(
        color.scale_matrix(0.9), color.brightness_matrix(9.0), color.saturation_matrix(0.5)
    )
    one_by_one = painted(color.scale_matrix(0.9))
    one_by_one = painted(color.brightness_matrix(9.0), image=one_by_one)
    assert near(together, painted(color.saturation_matrix(0.5), image=one_by_one), 2)


def test_contrast_after_brightness_uses_the_new_mean():
    flat = tf.fill([8, 8, 3], tf.constant(100, tf.uint8))
    changes = [
        lambda mean: color.brightness_matrix(30.0),
        lambda mean: color.contrast_matrix(mean, 0.0),
    ]
    assert near(color.change_colors(flat, changes), np.full((8, 8, 3), 130))


@pytest.mark.parametrize("change", [color.brightness, color.contrast, color.saturation])
def test_gray_images_change_like_gray_pixels_of_color_images(change):
    gray = COLORS[..., :1]
    one = color.change_colors(gray, [lambda mean: change(mean, 0.5, SEED)])
    three = color.change_colors(tf.repeat(gray, 3, 2), [lambda mean: change(mean, 0.5, SEED)])
    assert near(one, three[..., :1])


def test_grayscale_probability_is_its_strength():
    seeds = [tf.constant([3, each], tf.int64) for each in range(60)]
    red = tf.constant([[[200, 10, 10]]], tf.uint8)
    results = [
        color.change_colors(red, [lambda mean, s=s: color.grayscale(mean, 0.5, s)]).numpy()
        for s in seeds
    ]
    assert 18 < sum(each[0, 0, 0] == each[0, 0, 1] for each in results) < 42


NOISE = tf.constant(np.random.default_rng(0).integers(0, 256, (11, 11, 3), np.uint8))
SEEDS = [tf.constant([1, each], tf.int64) for each in range(20)]


def test_quarter_rotation_equals_numpy():
    assert np.array_equal(
        geometry.warp(NOISE, geometry.rotation_matrix(90.0)), np.rot90(NOISE.numpy())
    )


def test_translation_mirrors_at_the_border():
    moved = geometry.warp(NOISE, geometry.translation_matrix(2.0, -1.0)).numpy()
    assert np.array_equal(moved[1:, :-2], NOISE.numpy()[:-1, 2:])
    assert np.array_equal(moved[0], moved[1])


def test_shear_leaves_the_middle_row():
    slanted = geometry.warp(NOISE, geometry.shear_matrix(0.4, 0.0)).numpy()
    assert np.array_equal(slanted[5], NOISE.numpy()[5])
    assert not np.array_equal(slanted[0], NOISE.numpy()[0])


def test_fused_geometric_changes_interpolate_once():
    there = geometry.rotation_matrix(30.0)
    back = geometry.rotation_matrix(-30.0)
    assert np.array_equal(
        geometry.change_geometry(NOISE, [lambda size: there, lambda size: back]), NOISE
    )


def test_geometric_changes_apply_in_order():
    turn, shift = geometry.rotation_matrix(90.0), geometry.translation_matrix(3.0, 0.0)
    together = geometry.change_geometry(NOISE, [lambda size: turn, lambda size: shift]).numpy()
    one_by_one = geometry.warp(geometry.warp(NOISE, turn), shift).numpy()
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
def test_geometric_strengths_are_limits(change, strength, limit):
    matrices = [change((20.0, 30.0), strength, seed).numpy() for seed in SEEDS]
    assert all(limit(each.astype(float).round(5)) for each in matrices)
    assert len({each.tobytes() for each in matrices}) == len(SEEDS)
