"""Heatmaps, compared with their formulas and with patches that they must find."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from library.explaining.grad_cam import GRAD_CAM, HIRES_CAM, OCCLUSION, HeatmapModel, class_evidence
from library.messages import ChoiceError
from tests.helpers.small_networks import build

pytestmark = pytest.mark.slow
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
# Corners (row, column) of the patches.
CORNERS = [(1, 1), (1, 10), (10, 1), (10, 10)]


def draw_patch(y, x, color, edge=5, size=16):
    image = RANDOM.uniform(100, 140, (size, size, 3)).astype(np.float32)
    image[y : y + edge, x : x + edge] = color
    return image


def train(network, images, labels, steps=40):
    network.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True))
    for _ in range(steps):
        network.train_on_batch(images, labels)
    assert (network(images).numpy().argmax(1) == labels).all()


def share_inside(heat, y, x, edge=5, size=16):
    """Return which share of a heat map lies on the patch, after enlarging it to the image."""
    large = tf.image.resize(heat[..., np.newaxis], (size, size)).numpy()[..., 0]
    return large[y : y + edge, x : x + edge].sum() / large.sum()


def test_heatmap_finds_patch_whose_position_is_the_class():
    keras.utils.set_random_seed(0)
    network = build("simple", (16, 16, 3), 4, dropout_rate=0.0)
    labels = np.arange(40) % 4
    images = np.stack([draw_patch(*CORNERS[each], (230, 30, 30)) for each in labels])
    train(network, images, labels)
    maps = HeatmapModel(network)
    # The positions have weights of their own here, so Grad-CAM's average would be misleading.
    assert maps.method == HIRES_CAM
    heat, scores = maps.heatmaps(images[:4], labels[:4])
    assert (scores.argmax(1) == labels[:4]).all()
    for number, corner in enumerate(CORNERS):
        y, x = np.unravel_index(heat[number].argmax(), heat[number].shape)
        assert (y, x) == (corner[0] > 5, corner[1] > 5)


def test_heatmap_finds_patch_whose_color_is_the_class():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    for width in (8, 16):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    network = keras.Model(pixels, layers.Dense(3, name="scores")(x))
    labels = np.arange(48) % 3
    corners = RANDOM.integers(0, 11, (48, 2))
    colors = [(230, 30, 30), (30, 230, 30), (30, 30, 230)]
    images = np.stack(
        [draw_patch(y, x, colors[each]) for each, (y, x) in zip(labels, corners, strict=True)]
    )
    train(network, images, labels)
    maps = HeatmapModel(network)
    assert maps.method == GRAD_CAM
    heat, _ = maps.heatmaps(images, labels)
    for each, (y, x) in zip(heat, corners, strict=True):
        hottest = np.unravel_index(each.argmax(), each.shape)
        assert y <= hottest[0] < y + 5
        assert x <= hottest[1] < x + 5
    shares = [share_inside(each, *at) for each, at in zip(heat, corners, strict=True)]
    # The patch is a tenth of the image; positions two pixels beside it still see some of it.
    assert np.mean(shares) > 0.5
    assert min(shares) > 0.3


def make_averaging(kernel, weights):
    """Maps linear in the pixels, their averages, scores linear in those: all known by hand."""
    pixels = keras.Input((8, 8, 3))
    maps = layers.Conv2D(kernel.shape[-1], 1, use_bias=False, name="maps")(pixels)
    scores = layers.Dense(weights.shape[1], use_bias=False, name="scores")
    network = keras.Model(pixels, scores(layers.GlobalAveragePooling2D()(maps)))
    network.get_layer("maps").set_weights([kernel])
    network.get_layer("scores").set_weights([weights])
    return network


def normalized(heat):
    heat = np.maximum(heat, 0)
    return heat / heat.max((1, 2), keepdims=True)


def test_grad_cam_matches_formula():
    kernel, weights = RANDOM.normal(size=(1, 1, 3, 4)), RANDOM.normal(size=(4, 3))
    maps = HeatmapModel(make_averaging(kernel, weights))
    heat, scores = maps.heatmaps(PIXELS, [0, 2, 1])
    assert (maps.method, maps.layer) == (GRAD_CAM, "maps")
    activations = PIXELS @ kernel[0, 0]
    assert np.allclose(scores, activations.mean((1, 2)) @ weights, rtol=1e-4)
    # A map's weight is the class's weight over the number of positions, which cancels out.
    by_hand = np.einsum("nyxk,nk->nyx", activations, weights[:, [0, 2, 1]].T)
    assert np.allclose(heat, normalized(by_hand), atol=1e-4)


def test_hires_cam_matches_formula():
    kernel = RANDOM.normal(size=(1, 1, 3, 2))
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(2, 1, use_bias=False, name="maps")(pixels)
    network = keras.Model(pixels, layers.Dense(3, name="scores")(layers.Flatten()(x)))
    network.get_layer("maps").set_weights([kernel])
    maps = HeatmapModel(network)
    heat, _ = maps.heatmaps(PIXELS, [1, 1, 0])
    weights = network.get_layer("scores").get_weights()[0].reshape(8, 8, 2, 3)
    parts = (PIXELS @ kernel[0, 0])[..., np.newaxis] * weights
    by_hand = np.stack([parts[n, ..., label].sum(-1) for n, label in enumerate((1, 1, 0))])
    assert np.allclose(heat, normalized(by_hand), atol=1e-4)


def test_occlusion_matches_formula():
    pixels = keras.Input((8, 8, 3))
    network = keras.Model(pixels, layers.Dense(3, name="scores")(layers.Flatten()(pixels)))
    maps = HeatmapModel(network)
    assert (maps.method, maps.layer) == (OCCLUSION, None)
    heat, scores = maps.heatmaps(PIXELS[:1], [1])
    weights = network.get_layer("scores").get_weights()[0].reshape(8, 8, 3, 3)[..., 1]
    assert np.allclose(scores, network(PIXELS[:1]), rtol=1e-4)
    # The evidence lost with each pixel. A cell is one pixel here, and a square four of them.
    lost = (weights * (PIXELS[0] - PIXELS[0].mean((0, 1)))).sum(-1)
    squares = sum(lost[y : 7 + y, x : 7 + x] for y in (0, 1) for x in (0, 1))
    padded = np.pad(squares, 1)
    times = np.pad(np.ones((7, 7)), 1)
    around = [(slice(y, 8 + y), slice(x, 8 + x)) for y in (0, 1) for x in (0, 1)]
    by_hand = sum(padded[each] for each in around) / sum(times[each] for each in around)
    assert np.allclose(heat, normalized(by_hand[np.newaxis]), atol=1e-3)


def test_occlusion_of_one_pixel():
    pixels = keras.Input((1, 1, 3))
    network = keras.Model(pixels, layers.Dense(3)(layers.Flatten()(pixels)))
    heat, _ = HeatmapModel(network).heatmaps(PIXELS[:, :1, :1], [0, 1, 2])
    # Covering a pixel with its own mean changes nothing.
    assert (heat == 0).all()
    assert heat.shape == (3, 1, 1)


def test_class_evidence_of_two_classes_is_the_lead():
    scores = tf.constant([[0.0, 3.0], [0.0, -2.0]])
    assert class_evidence(scores, tf.constant([0, 1])).numpy().tolist() == [-3.0, -2.0]
    assert class_evidence(scores, tf.constant([0, 1]), multi_label=True).numpy().tolist() == [
        0.0,
        -2.0,
    ]
    many = tf.constant([[0.0, 3.0, 1.0]])
    assert class_evidence(many, tf.constant([2])).numpy().tolist() == [1.0]


def test_heatmap_of_chosen_layer():
    network = build("simple", (16, 16, 3), 2, dropout_rate=0.0, head="sigmoid")
    images = np.stack([draw_patch(1, 1, (230, 30, 30))] * 2)
    maps = HeatmapModel(network, "block1_convolution")
    heat, _ = maps.heatmaps(images, [0, 1])
    assert heat.shape == (2, 16, 16)
    # Evidence for one of two classes is evidence against the other.
    assert not np.logical_and(heat[0] > 0, heat[1] > 0).any()
    assert heat[0].max() == heat[1].max() == 1
    with pytest.raises(ChoiceError, match="did you mean 'block1_convolution'"):
        HeatmapModel(network, "block1_convolutoin")
