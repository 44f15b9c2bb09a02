"""The most uncertain of any number of images, without copies, in bounded memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from library.prediction.neighbor_index import normalize
from library.prediction.preprocess import Prediction

# Images are copies if the cosine similarity of their embeddings is at least this. It must not be
# much lower: different images of plain surfaces reach 0.99, and where all of a class are like that
# (crops of a sky), a network would get too few labels of it.
COPY_SIMILARITY = 0.9999
_BLOCK = 512


@dataclass(frozen=True)
class Candidates:
    """Images to choose from, the most uncertain first.

    Attributes:
        names: The files.
        probabilities: float32 (n, classes).
        embeddings: float32 (n, size), of length 1.
        uncertainty: float32 (n,), from 0 (certain) to 1.
    """

    names: list[str]
    probabilities: np.ndarray
    embeddings: np.ndarray
    uncertainty: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> "Candidates":
        """Return those in some rows, in their order."""
        return Candidates(
            [self.names[row] for row in rows],
            self.probabilities[rows],
            self.embeddings[rows],
            self.uncertainty[rows],
        )


def measure_uncertainty(probabilities: np.ndarray, *, multi_label: bool = False) -> np.ndarray:
    """Return how uncertain predictions are, float32 (n,), from 0 to 1.

    It is 1 minus the margin, that is the difference of the two highest probabilities: of the
    measures in use it asks most directly for images near a border between classes. For multi-label
    networks it is the same of the most doubtful label, whose second class is its absence.

    Args:
        probabilities: float (n, classes).
        multi_label: Whether an image may have several classes, or none.
    """
    if multi_label:
        return 1 - np.abs(2 * probabilities - 1).min(axis=1)
    if probabilities.shape[1] == 1:
        return np.zeros(len(probabilities), np.float32)
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


def collect_candidates(
    predictions: Iterable[Prediction],
    limit: int,
    *,
    multi_label: bool = False,
) -> Candidates:
    """Return the most uncertain images that are no copies of each other.

    Twice the limit is in memory at most, however many predictions there are.

    Args:
        predictions: With embeddings; those without an answer are passed over.
        limit: How many images to return at most.
        multi_label: Whether an image may have several classes, or none.
    """
    kept: Candidates | None = None
    waiting: list[Prediction] = []

    def merge() -> None:
        nonlocal kept
        if waiting:
            probabilities = np.array([each.probabilities for each in waiting])
            added = Candidates(
                [each.name for each in waiting],
                probabilities,
                normalize(np.array([each.embedding for each in waiting])),
                measure_uncertainty(probabilities, multi_label=multi_label),
            )
            waiting.clear()
            both = _join(kept, added) if kept else added
            # Stable, so that of equally uncertain images the first ones are taken.
            both = both.take(np.argsort(-both.uncertainty, kind="stable"))
            kept = both.take(find_distinct(both.embeddings, limit))

    for prediction in predictions:
        if prediction.probabilities is None:
            continue
        if kept and len(kept) == limit:
            row = prediction.probabilities[np.newaxis]
            if measure_uncertainty(row, multi_label=multi_label)[0] <= kept.uncertainty[-1]:
                continue
        waiting.append(prediction)
        if len(waiting) >= limit:
            merge()
    merge()
    empty = np.zeros((0, 0), np.float32)
    return kept or Candidates([], empty, empty, empty.ravel())


def find_distinct(embeddings: np.ndarray, limit: int) -> np.ndarray:
    """Return the rows that are no copies of earlier ones.

    Args:
        embeddings: float32 (n, size), of length 1.
        limit: How many rows to return at most.
    """
    found: list[int] = []
    for start in range(0, len(embeddings), _BLOCK):
        block = embeddings[start : start + _BLOCK]
        is_new = (block @ embeddings[found].T < COPY_SIMILARITY).all(axis=1)
        alike = block @ block.T >= COPY_SIMILARITY
        for row in np.flatnonzero(is_new):
            # Those before it that are new by now.
            if not (alike[row, :row] & is_new[:row]).any():
                found.append(start + int(row))
            else:
                is_new[row] = False
        if len(found) >= limit:
            break
    return np.array(found[:limit], np.int64)


def _join(one: Candidates, other: Candidates) -> Candidates:
    return Candidates(
        one.names + other.names,
        np.concatenate([one.probabilities, other.probabilities]),
        np.concatenate([one.embeddings, other.embeddings]),
        np.concatenate([one.uncertainty, other.uncertainty]),
    )
