import numpy as np
import pytest
import tensorflow as tf

from library.augmentation import color

IMAGE = tf.constant(np.random.default_rng(0).integers(60, 190, (40, 34, 3), np.uint8))
SEED = tf.constant([1, 2], tf.int64)


def painted(*matrices, image=IMAGE):
    return color.change_colors(image, [lambda mean, each=each: each for each in matrices])


def near(image, expected, tolerance=1):
    return np.abs(image.numpy().astype(int) - np.asarray(expected).astype(int)).max() <= tolerance


def test_each_matrix_does_what_its_name_says():
    pixels = IMAGE.numpy().astype(float)
    gray = pixels @ [0.299, 0.587, 0.114]
    assert near(painted(color.brightened(12.0)), pixels + 12)
    assert near(painted(color.multiplied(0.5)), pixels / 2)
    assert near(painted(color.saturated(0.0)), np.repeat(gray[..., np.newaxis], 3, 2))
    assert near(painted(color.saturated(1.5)), (1.5 * pixels - 0.5 * gray[..., None]).clip(0, 255))
    mean = color.mean_color(IMAGE)
    spread = painted(color.contrasted(mean, 1.4))
    assert near(spread, (1.4 * pixels - 0.4 * gray.mean()).clip(0, 255), 3)


def test_a_turned_hue_keeps_brightness_and_comes_back_after_a_full_turn():
    turned = color.change_colors(IMAGE, [lambda mean: color.hue(mean, 0.2, SEED)])
    gray = [0.299, 0.587, 0.114]
    assert np.abs(turned.numpy() @ gray - IMAGE.numpy() @ gray).mean() < 1
    assert not near(turned, IMAGE, 5)
    third = color._KEPT + np.cos(2 * np.pi / 3) * color._COSINE
    third = third + np.sin(2 * np.pi / 3) * color._SINE + color._ONE
    assert np.allclose(np.linalg.matrix_power(third, 3), np.eye(4), atol=1e-5)


def test_changes_in_a_row_equal_one_after_another_where_nothing_is_cut():
    together = painted(color.multiplied(0.9), color.brightened(9.0), color.saturated(0.5))
    one_by_one = painted(color.multiplied(0.9))
    one_by_one = painted(color.brightened(9.0), image=one_by_one)
    assert near(together, painted(color.saturated(0.5), image=one_by_one), 2)


def test_contrast_after_brightness_spreads_from_the_new_mean():
    flat = tf.fill([8, 8, 3], tf.constant(100, tf.uint8))
    changes = [lambda mean: color.brightened(30.0), lambda mean: color.contrasted(mean, 0.0)]
    assert near(color.change_colors(flat, changes), np.full((8, 8, 3), 130))


@pytest.mark.parametrize("change", [color.brightness, color.contrast, color.saturation])
def test_gray_images_are_changed_as_gray_pixels_of_colored_ones(change):
    gray = IMAGE[..., :1]
    one = color.change_colors(gray, [lambda mean: change(mean, 0.5, SEED)])
    three = color.change_colors(tf.repeat(gray, 3, 2), [lambda mean: change(mean, 0.5, SEED)])
    assert near(one, three[..., :1])


def test_grayscale_is_as_frequent_as_its_strength_says():
    seeds = [tf.constant([3, each], tf.int64) for each in range(60)]
    red = tf.constant([[[200, 10, 10]]], tf.uint8)
    results = [
        color.change_colors(red, [lambda mean, s=s: color.grayscale(mean, 0.5, s)]).numpy()
        for s in seeds
    ]
    assert 18 < sum(each[0, 0, 0] == each[0, 0, 1] for each in results) < 42
