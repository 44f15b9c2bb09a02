"""Predictors, ensembles, views and embeddings, against NumPy and plain Keras."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from library.errors import CheckpointError, SettingsError
from library.models.scores import MULTI_LABEL, is_multi_label
from library.prediction.embedding import with_embedding
from library.prediction.ensemble import VIEWS, choose_views, combine_snapshots
from library.prediction.predictor import Predictor
from project.networks.heads import add_scores
from tests.helpers.networks import PIXELS, make_snapshot, scores_of, sigmoid, softmax

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32)


def last_layer_input(network, pixels, name="scores"):
    layer = network.get_layer(name)
    return keras.Model(network.input, layer.input)(pixels.astype(np.float32)).numpy()


def test_predictor_probabilities_are_the_softmax():
    snapshot = make_snapshot()
    found = Predictor([snapshot]).probabilities(PIXELS)
    assert found.dtype == np.float32
    assert np.allclose(found, softmax(scores_of(snapshot)), atol=1e-6)
    probabilities, embeddings = Predictor([snapshot]).predict(PIXELS)
    assert np.array_equal(probabilities, found)
    assert embeddings.shape == (len(PIXELS), 0)


def test_predictor_multi_label_probabilities_are_the_sigmoid():
    snapshot = make_snapshot(head=MULTI_LABEL)
    predictor = Predictor([snapshot])
    assert predictor.multi_label
    expected = sigmoid(scores_of(snapshot))
    assert np.allclose(predictor.probabilities(PIXELS), expected, atol=1e-6)


def test_predictor_temperature_divides_scores():
    snapshot = make_snapshot()
    found = Predictor([snapshot], temperatures=[2.5]).probabilities(PIXELS)
    assert np.allclose(found, softmax(scores_of(snapshot) / 2.5), atol=1e-6)


def test_predictor_averages_views_and_networks():
    first, second = make_snapshot(0), make_snapshot(1)
    found = Predictor([first, second], views=2).probabilities(PIXELS)
    mirrored = PIXELS[:, :, ::-1]
    parts = [scores_of(each, pixels) for each in (first, second) for pixels in (PIXELS, mirrored)]
    assert np.allclose(found, np.mean([softmax(each) for each in parts], axis=0), atol=1e-6)


def test_combine_snapshots_returns_a_single_one_unchanged():
    snapshot = make_snapshot()
    assert combine_snapshots([snapshot]) is snapshot


def test_combine_snapshots_has_the_mean_probabilities():
    first, second = make_snapshot(0), make_snapshot(1)
    combined = combine_snapshots([first, second], [2.0, 0.5])
    expected = (softmax(scores_of(first) / 2) + softmax(scores_of(second) / 0.5)) / 2
    assert np.allclose(softmax(scores_of(combined)), expected, atol=1e-6)
    assert combined.network.output_shape == (None, 3)


def test_combine_snapshots_averages_each_class_of_multi_label_networks():
    first, second = make_snapshot(0, head=MULTI_LABEL), make_snapshot(1, head=MULTI_LABEL)
    combined = combine_snapshots([first, second])
    assert is_multi_label(combined.network)
    expected = np.mean([sigmoid(scores_of(each)) for each in (first, second)], axis=0)
    assert np.allclose(sigmoid(scores_of(combined)), expected, atol=1e-6)


def test_combine_snapshots_scores_stay_finite():
    snapshot = make_snapshot()
    snapshot.network.layers[-1].kernel.assign(snapshot.network.layers[-1].kernel * 1e5)
    assert np.isfinite(scores_of(combine_snapshots([snapshot, snapshot]), PIXELS)).all()


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({"classes": ("cat", "eel", "fox")}, "'dog'"),
        ({"classes": ("dog", "cat", "eel")}, "order"),
        ({"size": 9}, r"\(8, 8, 3\).*\(9, 9, 3\)"),
        ({"head": MULTI_LABEL}, "multi-label"),
    ],
    ids=["classes", "order of classes", "image shape", "labels"],
)
def test_combine_snapshots_refuses_incompatible_ones(other, text):
    with pytest.raises(CheckpointError, match=text):
        combine_snapshots([make_snapshot(), make_snapshot(**other)])


def test_combine_snapshots_refuses_those_that_see_other_pixels():
    other = replace(make_snapshot(1), data={"fit": {"name": "crop", "crop_fraction": 0.5}})
    assert combine_snapshots([other, other]).image_format.fit.crop_fraction == 0.5
    with pytest.raises(CheckpointError, match="fit"):
        combine_snapshots([make_snapshot(), other])


def test_choose_views_starts_with_the_image_and_its_mirror_image():
    whole, flipped = choose_views(2)
    assert np.array_equal(whole(IMAGES), IMAGES)
    assert np.array_equal(flipped(IMAGES), IMAGES[:, :, ::-1])


def test_views_crop_their_corner_and_keep_the_size():
    images = np.zeros((1, 16, 16, 1), np.float32)
    images[:, :2, :2] = 255  # the top left corner, which the opposite crop does not hold
    whole, _, center, _, top_left, _, bottom_right, _, top_right, _, bottom_left, _ = (
        float(np.sum(view(images))) for view in VIEWS
    )
    assert all(view(IMAGES).shape == IMAGES.shape for view in VIEWS)
    assert bottom_right == top_right == bottom_left == 0
    assert top_left > whole > center > 0


def test_choose_views_mirrors_each_crop():
    views = choose_views(12)
    assert np.array_equal(views[3](IMAGES), views[2](IMAGES)[:, :, ::-1])
    assert len({np.asarray(view(IMAGES)).tobytes() for view in views[1:]}) == 11


@pytest.mark.parametrize("count", [0, 13])
def test_choose_views_refuses_other_counts(count):
    with pytest.raises(ValueError, match=f"1 to 12, not {count}"):
        choose_views(count)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "multi_label"])
def test_embedding_is_the_input_of_the_last_layer(head):
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Dense(5, activation="tanh")(keras.layers.Flatten()(pixels / 255))
    network = keras.Model(pixels, add_scores(keras.layers.Dropout(0.5)(x), 2, head))
    name = MULTI_LABEL if head == "multi_label" else "scores"
    scores, embedding = with_embedding(network)(PIXELS.astype(np.float32), training=False)
    assert np.array_equal(scores, network(PIXELS.astype(np.float32)))
    assert np.array_equal(embedding, last_layer_input(network, PIXELS, name))
    assert embedding.shape == (5, 5)


def test_embedding_of_a_float16_layer_is_float32():
    pixels = keras.Input((2,))
    x = keras.layers.Dense(3, dtype="mixed_float16")(pixels)
    network = keras.Model(pixels, add_scores(x, 2, "softmax"))
    embedding = with_embedding(network)(np.ones((1, 2), np.float32))[1]
    assert embedding.dtype == np.float32
    assert network.get_layer("scores").input.dtype == "float16"


@pytest.mark.parametrize(("head", "views"), [("scores", 1), ("scores", 2), (MULTI_LABEL, 2)])
def test_embedding_averages_views_and_concatenates_networks(head, views):
    first = make_snapshot(0, head=head, hidden=3)
    second = make_snapshot(1, head=head, hidden=4)
    combined = combine_snapshots([first, second], views=views)
    # Combined again, as when a temperature is fitted to the ensemble.
    combined = combine_snapshots([combined], [2.5])
    predictor = Predictor([combined], embedding=True)
    probabilities, embedding = predictor.predict(PIXELS)
    images = [PIXELS, PIXELS[:, :, ::-1]][:views]
    parts = [
        np.mean([last_layer_input(each.network, x, head) for x in images], axis=0)
        for each in (first, second)
    ]
    assert predictor.embedding_size == embedding.shape[1] == 3 + 4
    assert np.allclose(embedding, np.concatenate(parts, axis=1), atol=1e-6)
    assert np.allclose(probabilities, Predictor([combined]).probabilities(PIXELS), atol=1e-6)


def test_embedding_of_a_layer_without_name_is_the_input_of_the_last_one():
    pixels = keras.Input((4, 4, 3))
    network = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)))
    assert with_embedding(network).output_shape == [(None, 2), (None, 48)]


def test_embedding_needs_a_last_layer_that_takes_a_vector():
    pixels = keras.Input((4, 4, 3))
    for name in ("scores", "other"):
        maps = keras.layers.Conv2D(2, 4, name=name)(pixels)
        with pytest.raises(SettingsError, match="network x"):
            with_embedding(keras.Model(pixels, keras.layers.Flatten()(maps), name="x"))
    with pytest.raises(SettingsError):
        with_embedding(keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels)))
