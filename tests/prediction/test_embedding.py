import keras
import numpy as np
import pytest

from library.errors import SettingsError
from library.models.scores import MULTI_LABEL
from library.prediction.embedding import with_embedding
from library.prediction.ensemble import combine
from library.prediction.predictor import Predictor
from project.networks.heads import add_scores
from tests.prediction.test_predictor import PIXELS, make


def taken_by_last_layer(network, pixels, name="scores"):
    """What the last layer takes, as Keras itself tells it."""
    layer = network.get_layer(name)
    return keras.Model(network.input, layer.input)(pixels.astype(np.float32)).numpy()


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "multi_label"])
def test_it_is_what_the_last_layer_takes_and_the_rest_stays(head):
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Dense(5, activation="tanh")(keras.layers.Flatten()(pixels / 255))
    network = keras.Model(pixels, add_scores(keras.layers.Dropout(0.5)(x), 2, head))
    name = MULTI_LABEL if head == "multi_label" else "scores"
    scores, embedding = with_embedding(network)(PIXELS.astype(np.float32), training=False)
    assert np.array_equal(scores, network(PIXELS.astype(np.float32)))
    assert np.array_equal(embedding, taken_by_last_layer(network, PIXELS, name))
    assert embedding.shape == (5, 5)


def test_half_precision_becomes_float32():
    pixels = keras.Input((2,))
    x = keras.layers.Dense(3, dtype="mixed_float16")(pixels)
    network = keras.Model(pixels, add_scores(x, 2))
    embedding = with_embedding(network)(np.ones((1, 2), np.float32))[1]
    assert embedding.dtype == np.float32
    assert network.get_layer("scores").input.dtype == "float16"


@pytest.mark.parametrize(("head", "views"), [("scores", 1), ("scores", 2), (MULTI_LABEL, 2)])
def test_views_are_averaged_and_networks_lie_side_by_side(head, views):
    first, second = make(0, head=head, hidden=3), make(1, head=head, hidden=4)
    combined = combine([first, second], views=views)
    # Once more, as where a temperature is fitted to all of them together.
    combined = combine([combined], [2.5])
    predictor = Predictor([combined], embedding=True)
    probabilities, embedding = predictor.predict(PIXELS)
    shown = [PIXELS, PIXELS[:, :, ::-1]][:views]
    parts = [
        np.mean([taken_by_last_layer(each.network, x, head) for x in shown], axis=0)
        for each in (first, second)
    ]
    assert predictor.embedding_size == embedding.shape[1] == 3 + 4
    assert np.allclose(embedding, np.concatenate(parts, axis=1), atol=1e-6)
    assert np.allclose(probabilities, Predictor([combined]).probabilities(PIXELS), atol=1e-6)


def test_a_network_without_a_known_last_layer_has_none():
    pixels = keras.Input((4, 4, 3))
    network = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels)), name="x")
    with pytest.raises(SettingsError, match="network x has no embedding: no layer called scores"):
        with_embedding(network)
    maps = keras.layers.Conv2D(2, 4, name="scores")(pixels)
    with pytest.raises(SettingsError, match="no layer called scores takes a vector"):
        with_embedding(keras.Model(pixels, keras.layers.Flatten()(maps)))
