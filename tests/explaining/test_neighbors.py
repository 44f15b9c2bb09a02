import keras
import numpy as np
import pytest

from library.explaining.neighbors import find_neighbors, make_embedding
from library.prediction.ensemble import combine_snapshots
from project.networks import NETWORKS
from tests.helpers.networks import make_snapshot

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (37, 8, 8, 3), dtype=np.uint8)
LABELS = RANDOM.integers(0, 3, 37)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return NETWORKS["simple"]((8, 8, 3), 3)


def batches(images, size):
    for start in range(0, len(images), size):
        end = min(start + size, len(images))
        names = np.array([f"{each}.jpg".encode() for each in range(start, end)], object)
        yield images[start:end], LABELS[start:end], names


@pytest.mark.parametrize("size", [1, 5, 37])
def test_they_are_those_of_comparing_all_with_all(network, size):
    embed = make_embedding(network)
    embeddings = keras.Model(network.input, network.get_layer("scores").input)(
        IMAGES.astype(np.float32)
    ).numpy()
    # All at once, by the textbook: the cosine of every pair.
    lengths = np.linalg.norm(embeddings, axis=1)
    cosines = embeddings[:4] @ embeddings.T / lengths / lengths[:4, np.newaxis]
    found = find_neighbors(embed(IMAGES[:4]), batches(IMAGES, size), embed, 6)
    for query, nearest in enumerate(found):
        numbers = [each.number for each in nearest]
        assert numbers == np.argsort(-cosines[query])[:6].tolist()
        assert numbers[0] == query
        similarities = [each.similarity for each in nearest]
        assert np.allclose(similarities, cosines[query][numbers], atol=1e-5)
        assert similarities[0] == pytest.approx(1)
        for each in nearest:
            assert (each.name, each.label) == (f"{each.number}.jpg", LABELS[each.number])
            assert np.array_equal(each.pixels, IMAGES[each.number])


def test_of_equal_ones_the_first_is_kept_and_few_are_no_fault(network):
    embed = make_embedding(network)
    twins = np.repeat(IMAGES[:1], 9, 0)
    (nearest,) = find_neighbors(embed(IMAGES[:1]), batches(twins, 4), embed, 3)
    assert [each.number for each in nearest] == [0, 1, 2]
    (nearest,) = find_neighbors(embed(IMAGES[:1]), batches(IMAGES[:2], 4), embed, 3)
    assert [each.number for each in nearest] == [0, 1]


def test_several_networks_compare_by_what_each_ones_last_layer_takes():
    first, second = make_snapshot(0, hidden=3), make_snapshot(1, hidden=4)
    found = make_embedding(combine_snapshots([first, second]).network)(IMAGES)
    parts = [
        keras.Model(each.network.input, each.network.layers[-1].input)(np.float32(IMAGES))
        for each in (first, second)
    ]
    expected = np.concatenate(parts, axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found, expected, atol=1e-6)


def test_an_image_without_any_signal_is_like_none():
    pixels = keras.Input((2, 2, 1))
    scores = keras.layers.Dense(2, name="scores")
    network = keras.Model(pixels, scores(keras.layers.Flatten()(pixels)))
    embed = make_embedding(network)
    assert embed(np.zeros((1, 2, 2, 1))).tolist() == [[0, 0, 0, 0]]
    assert embed(np.full((1, 2, 2, 1), 7)).tolist() == [[0.5, 0.5, 0.5, 0.5]]
