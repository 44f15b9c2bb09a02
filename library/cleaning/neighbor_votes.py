"""What the images nearest to each one are labeled, by cosine similarity of the embeddings."""

from dataclasses import dataclass

import numpy as np

from library.evaluation.confusion import row_chunks
from library.prediction.image_outputs import ImageOutputs
from library.prediction.neighbor_index import NeighborIndex

_MAX_COUNT = 20
_MIN_COUNT = 5


@dataclass(frozen=True)
class NeighborVotes:
    """The nearest images of each of n images, and their labels.

    Attributes:
        indices: int32 (n, count), the nearest first; -1 where there are fewer.
        shares: float32 (n, classes): the share of these that has each class, weighted by their
            similarity.
    """

    indices: np.ndarray
    shares: np.ndarray

    @property
    def count(self) -> int:
        """The number of neighbors that are asked."""
        return self.indices.shape[1]


def find_votes(outputs: ImageOutputs) -> NeighborVotes | None:
    """Return the votes of neighbors in the same fold, whose embeddings are of the same network.

    As many vote as half the images that a class has on average, from 5 to 20.

    Returns:
        None without embeddings.
    """
    if outputs.embeddings is None:
        return None
    images, classes = len(outputs), len(outputs.classes)
    folds = np.zeros(images, np.int64) if outputs.folds is None else outputs.folds
    numbers = np.unique(folds)
    count = min(_MAX_COUNT, max(_MIN_COUNT, images // len(numbers) // classes // 2))
    indices = np.full((images, count), -1, np.int32)
    shares = np.zeros((images, classes), np.float32)
    for number in numbers:
        # A slice is no copy.
        rows = np.flatnonzero(folds == number) if len(numbers) > 1 else slice(None)
        index = NeighborIndex(outputs.embeddings[rows])
        found, similarities = index.search(index.embeddings, count, skip_own=True)
        near = np.arange(images)[rows][found]
        near[found < 0] = -1
        indices[rows, : near.shape[1]] = near
        weights = np.where(found < 0, 0, np.maximum(similarities, 0))
        shares[rows] = _weigh(outputs.labels, near, weights, classes)
    return NeighborVotes(indices, shares)


def _weigh(labels: np.ndarray, near: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Return the weighted share of each class among some images' neighbors, (some, classes)."""
    votes = np.zeros((len(near), classes), np.float32)
    for rows in row_chunks(np.broadcast_to(0, (len(near), classes * max(1, near.shape[1])))):
        some = labels[near[rows]]
        if labels.ndim == 2:
            votes[rows] = np.einsum("ij,ijk->ik", weights[rows], some)
        else:
            cells = np.arange(len(some))[:, None] * classes + some
            found = np.bincount(cells.ravel(), weights[rows].ravel(), len(some) * classes)
            votes[rows] = found.reshape(-1, classes)
    totals = np.maximum(weights.sum(1, keepdims=True), np.finfo(np.float32).tiny)
    return np.minimum(votes / totals, 1)
