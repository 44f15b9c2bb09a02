"""Nearest neighbors among embeddings: exact for thousands of them, through clusters beyond.

scikit-learn's NearestNeighbors compares all pairs, which takes minutes for 100,000 embeddings;
packages for approximate search are compiled extensions that nothing else here needs.
"""

import math
from collections.abc import Iterator

import numpy as np

# As many embeddings are compared with every query; of more, those of the nearest clusters.
EXACT_LIMIT = 20_000
# Clusters searched per query: they hold 97 % and more of the 16 nearest of 100,000 embeddings.
_PROBES = 12
_ROUNDS = 8
# Embeddings per cluster from which the centers are computed.
_SAMPLES = 32
# Values of a block of similarities: 32 MiB.
_BLOCK_VALUES = 2**23


class NeighborIndex:
    """Embeddings to search for those with the largest cosine similarity to a query.

    They are not copied; float16 takes half the memory of float32 and changes similarities by about
    0.0005. Deterministic. Of equally near embeddings, any may be found first.

    Attributes:
        embeddings: As they were given, (n, size).
    """

    def __init__(self, embeddings: np.ndarray, seed: int = 0) -> None:
        """Cluster the embeddings if there are many.

        Args:
            embeddings: float16 or float32 (n, size), of any length.
            seed: Seed of the clusters' first centers.
        """
        self.embeddings = embeddings
        self._centers: np.ndarray | None = None
        if len(embeddings) > EXACT_LIMIT:
            self._centers = _find_centers(embeddings, np.random.default_rng(seed))
            cells = _nearest_centers(embeddings, self._centers)
            self._order = np.argsort(cells, kind="stable")
            self._starts = np.searchsorted(cells[self._order], np.arange(len(self._centers) + 1))

    def search(
        self, queries: np.ndarray, count: int, *, skip_own: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the embeddings nearest to each query.

        Args:
            queries: (m, size), of any length; with `skip_own` the indexed embeddings themselves.
            count: Neighbors per query; fewer where there are fewer embeddings.
            skip_own: Whether query i must not find embedding i.

        Returns:
            (indices, similarities), the nearest first: int64 and float32 (m, count). Where the
            clusters hold too few, the last are -1 and -inf.
        """
        count = max(0, min(count, len(self.embeddings) - skip_own))
        indices = np.full((len(queries), count), -1, np.int64)
        similarities = np.full((len(queries), count), -np.inf, np.float32)
        for rows, candidates in self._candidates(queries):
            near = normalize(self.embeddings[candidates])
            for part in _blocks(len(rows), len(candidates)):
                some = rows[part]
                found = normalize(queries[some]) @ near.T
                if skip_own:
                    found[some[:, None] == candidates] = -np.inf
                best = _largest(found, min(count, len(candidates) - skip_own))
                indices[some, : best.shape[1]] = candidates[best]
                similarities[some, : best.shape[1]] = np.take_along_axis(found, best, 1)
        return indices, similarities

    def _candidates(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows of queries, indices of the embeddings to compare them with)."""
        if self._centers is None:
            yield np.arange(len(queries)), np.arange(len(self.embeddings))
            return
        cells = _nearest_centers(queries, self._centers)
        near = _largest(self._centers @ self._centers.T, _PROBES)
        for cell in np.unique(cells):
            members = [
                self._order[self._starts[each] : self._starts[each + 1]] for each in near[cell]
            ]
            yield np.flatnonzero(cells == cell), np.sort(np.concatenate(members))


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings of length 1, float32 (n, size); those of length 0 stay so."""
    result = embeddings.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", result, result))[:, None]
    result /= np.where(length > 0, length, 1)
    return result


def _find_centers(embeddings: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the centers of about sqrt(n) clusters, by spherical k-means on a sample."""
    count = math.isqrt(len(embeddings))
    size = min(len(embeddings), _SAMPLES * count)
    sample = normalize(embeddings[np.sort(random.choice(len(embeddings), size, replace=False))])
    centers = sample[random.choice(size, count, replace=False)]
    for _ in range(_ROUNDS):
        cells = _nearest_centers(sample, centers)
        order = np.argsort(cells, kind="stable")
        used, starts = np.unique(cells[order], return_index=True)
        # A cluster without members keeps its center.
        centers[used] = normalize(np.add.reduceat(sample[order], starts))
    return centers


def _nearest_centers(embeddings: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Return the center nearest to each embedding, whose length doesn't matter: int64 (n,)."""
    cells = np.empty(len(embeddings), np.int64)
    for part in _blocks(len(embeddings), max(centers.shape)):
        cells[part] = (embeddings[part].astype(np.float32, copy=False) @ centers.T).argmax(1)
    return cells


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // max(1, columns))
    return (slice(at, at + step) for at in range(0, rows, step))


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the columns of the largest values of each row, the largest first, (n, count)."""
    width = values.shape[1]
    count = min(count, width)
    best = (
        np.argpartition(values, width - count, axis=1)[:, width - count :]
        if count
        else (np.zeros((len(values), 0), np.int64))
    )
    order = np.argsort(-np.take_along_axis(values, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)
