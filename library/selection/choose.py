"""Choose uncertain images that are unlike each other: BADGE (Ash et al. 2020, arXiv 1906.03671).

An image's gradient is the one that the last layer would get from it, if its most probable class
were its label: long if the network is uncertain, and alike for images alike. k-means++ (Arthur and
Vassilvitskii 2007) draws images whose gradients are far apart, and far from 0, which teaches
nothing; near duplicates are hardly ever drawn together. docs/labels.md tells how this was chosen.
"""

import numpy as np

from library.prediction.neighbor_index import NeighborIndex

# Among how many of the most uncertain images each is chosen: enough that others remain where each
# image of the pool has near duplicates.
CANDIDATES_PER_IMAGE = 10


def choose_diverse(
    probabilities: np.ndarray,
    embeddings: np.ndarray,
    count: int,
    *,
    multi_label: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Choose images by k-means++ on their gradients.

    Args:
        probabilities: (n, classes), of the most uncertain image first.
        embeddings: float32 (n, size), of length 1.
        count: How many to choose; fewer if there are fewer images.
        multi_label: Whether an image may have several classes, or none.
        seed: Seed of the draws.

    Returns:
        The chosen rows in order, int64. Those whose gradients equal one that is chosen come last.
    """
    random = np.random.default_rng(seed)
    errors = probabilities - (probabilities > 0.5)
    if not multi_label:
        errors = probabilities.copy()
        errors[np.arange(len(errors)), errors.argmax(1)] -= 1
    # A gradient is the outer product of these errors and the embedding.
    squares = (errors**2).sum(1, dtype=np.float64)
    # Squared distances to the nearest gradient that is chosen, or to 0.
    nearest = squares.copy()
    rows: list[int] = []
    while len(rows) < min(count, len(embeddings)) and (total := nearest.sum()) > 0:
        row = int(random.choice(len(nearest), p=nearest / total) if rows else squares.argmax())
        products = (errors @ errors[row]) * (embeddings @ embeddings[row])
        away = np.maximum(squares + squares[row] - 2 * products, 0)
        nearest = np.minimum(nearest, away)
        rows.append(row)
        nearest[rows] = 0
    rest = np.setdiff1d(np.arange(len(embeddings)), rows)
    return np.concatenate([np.array(rows, np.int64), rest])[:count]


def measure_distances(embeddings: np.ndarray, labeled: np.ndarray | None = None) -> np.ndarray:
    """Return how far each image is from the nearest labeled or earlier one, float32 (n,).

    Args:
        embeddings: float32 (n, size), of length 1.
        labeled: Embeddings of length 1, (m, size).

    Returns:
        Euclidean distances from 0 to 2; that of the first image without labeled ones is 2.
    """
    similarities = np.tril(embeddings @ embeddings.T + 1, -1) - 1
    nearest = similarities.max(axis=1, initial=-1)
    if labeled is not None and len(labeled):
        nearest = np.maximum(nearest, NeighborIndex(labeled).search(embeddings, 1)[1][:, 0])
    return np.sqrt(np.maximum(2 - 2 * nearest, 0)).astype(np.float32)
