"""Choose images that are uncertain and unlike each other, and unlike those that are labeled.

Greedy k-center (Gonzalez 1985; Sener and Savarese 2018, arXiv 1708.00489) among the most uncertain
images, where each distance counts the more, the more uncertain the image is.
"""

import numpy as np

from library.prediction.neighbor_index import NeighborIndex

# Among how many of the most uncertain images each is chosen. With more, early rounds take odd
# images that teach little; k-center among all needs more labels than random choice
# (benchmarks/selection.py).
CANDIDATES_PER_IMAGE = 3
# Distances are multiplied by this power of the uncertainty: with 1, `select` needs a fifth more
# labels (benchmarks/selection.py).
POWER = 4


def choose_diverse(
    embeddings: np.ndarray,
    count: int,
    labeled: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the image farthest from all labeled and chosen ones, again and again.

    Without weights, no image is farther from the nearest chosen one than twice the smallest
    distance that so many images can reach.

    Args:
        embeddings: float32 (n, size), of length 1.
        count: How many to choose; fewer if there are fewer images.
        labeled: Embeddings of length 1, (m, size); None: the first choice has the largest weight.
        weights: How uncertain each image is, (n,), from 0 to 1; None: 1.

    Returns:
        (rows, distances): the chosen images in order, int64, and how far each was from the nearest
        of those before it: the Euclidean distance of embeddings of length 1, from 0 to 2.
    """
    weights = np.ones(len(embeddings), np.float32) if weights is None else weights**POWER
    nearest = np.full(len(embeddings), -1, np.float32)
    if labeled is not None and len(labeled):
        nearest = NeighborIndex(labeled).search(embeddings, 1)[1][:, 0]
    rows, distances = [], []
    free = np.ones(len(embeddings), bool)
    for _ in range(min(count, len(embeddings))):
        distance = np.sqrt(np.maximum(2 - 2 * nearest, 0))
        row = int(np.where(free, weights * distance, -1).argmax())
        rows.append(row)
        distances.append(float(distance[row]))
        free[row] = False
        nearest = np.maximum(nearest, embeddings @ embeddings[row])
    return np.array(rows, np.int64), np.array(distances, np.float32)
