"""Nearest neighbors, against scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from library.prediction import neighbor_index
from library.prediction.neighbor_index import NeighborIndex, normalize

random = np.random.default_rng(0)
# Twenty clouds along a few directions, as embeddings are: not evenly spread in all dimensions.
CENTERS = random.normal(size=(20, 48))
DIRECTIONS = random.normal(size=(6, 48)) / 6
EMBEDDINGS = (
    CENTERS[random.integers(20, size=1500)]
    + random.normal(size=(1500, 6)) @ DIRECTIONS
    + random.normal(size=(1500, 48)) / 10
).astype(np.float32)


def expected_neighbors(embeddings, queries, count):
    peer = NearestNeighbors(metric="cosine", algorithm="brute").fit(embeddings)
    distances, indices = peer.kneighbors(queries, count)
    return indices, 1 - distances


def test_search_finds_those_of_scikit_learn():
    queries = EMBEDDINGS[:40] * 3 + 0.1
    indices, similarities = NeighborIndex(EMBEDDINGS).search(queries, 7)
    expected, expected_similarities = expected_neighbors(EMBEDDINGS, queries, 7)
    assert np.array_equal(indices, expected)
    assert np.allclose(similarities, expected_similarities, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_search_through_clusters_finds_nearly_all(dtype, monkeypatch):
    monkeypatch.setattr(neighbor_index, "EXACT_LIMIT", 1000)
    index = NeighborIndex(EMBEDDINGS.astype(dtype), seed=1)
    indices, similarities = index.search(index.embeddings, 10, skip_own=True)
    expected = expected_neighbors(EMBEDDINGS, EMBEDDINGS, 11)[0][:, 1:]
    found = np.mean([len({*one} & {*other}) for one, other in zip(indices, expected, strict=True)])
    assert found > (9.9 if dtype is np.float32 else 9.7)
    assert not (indices == np.arange(1500)[:, None]).any()
    assert (np.diff(similarities) <= 0).all()
    again = NeighborIndex(EMBEDDINGS.astype(dtype), seed=1)
    assert np.array_equal(again.search(again.embeddings, 10, skip_own=True)[0], indices)


def test_search_with_fewer_embeddings_than_asked_for(monkeypatch):
    two = NeighborIndex(EMBEDDINGS[:2])
    assert two.search(EMBEDDINGS[:2], 5, skip_own=True)[0].tolist() == [[1], [0]]
    assert NeighborIndex(EMBEDDINGS[:1]).search(EMBEDDINGS[:1], 5, skip_own=True)[0].shape == (1, 0)
    # The only cluster searched holds fewer than are asked for.
    monkeypatch.setattr(neighbor_index, "EXACT_LIMIT", 10)
    monkeypatch.setattr(neighbor_index, "_PROBES", 1)
    indices, similarities = NeighborIndex(EMBEDDINGS[:30]).search(EMBEDDINGS[:30], 29)
    assert np.array_equal(indices == -1, np.isneginf(similarities))
    assert (indices[:, 0] == np.arange(30)).all()
    assert (indices[:, -1] == -1).all()


def test_embeddings_of_zeros_are_similar_to_nothing():
    embeddings = np.vstack([np.zeros(48, np.float32), EMBEDDINGS[:3]])
    assert not normalize(embeddings)[0].any()
    assert not NeighborIndex(embeddings).search(embeddings[:1], 4)[1].any()
