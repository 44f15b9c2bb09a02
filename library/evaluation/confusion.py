"""Metrics that count correct, predicted and true images of each class.

`weights` are (n, samples): how often each image counts in each of several resamples. Metrics come
as (samples,), or (samples, classes). NaN marks what is undefined.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

# Scores in a chunk: few enough that the arrays computed from them stay small beside all scores.
_MAX_CHUNK = 250_000


def weighted_sum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sum of weights times values in each resample.

    Args:
        values: float64 (metrics, n).
        weights: (n, samples).

    Returns:
        float64 (metrics, samples).
    """
    # No product of matrices: the threads of BLAS wait for each other, on busy cores 10 times as
    # long as this takes.
    return np.einsum("mn,ns->ms", values, weights)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of a value per image, float or bool (n,), in each resample: (samples,)."""
    return weighted_sum(values[np.newaxis].astype(np.float64), weights)[0] / weights.sum(0)


class Rows(Protocol):
    """An array (n, classes), perhaps on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, classes)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Return some rows."""


def row_chunks(scores: Rows, rows: slice = slice(None)) -> Iterator[slice]:
    """Yield the rows of an array (n, classes), or those among `rows`, some at a time."""
    size = max(1, _MAX_CHUNK // max(scores.shape[1], 1))
    chosen = range(len(scores))[rows]
    for start in range(0, len(chosen), size):
        some = chosen[start : start + size]
        yield slice(some.start, some.stop, some.step)


class ClassPairs:
    """The classes of images, true or predicted ones, as pairs sorted by class, then image.

    Attributes:
        rows: The image of each pair, int64 (pairs,).
        classes: The class of each pair, int64 (pairs,).
        class_count: Number of classes.
    """

    def __init__(self, rows: np.ndarray, classes: np.ndarray, class_count: int) -> None:
        order = np.argsort(classes, kind="stable")
        self.rows, self.classes, self.class_count = rows[order], classes[order], class_count

    @classmethod
    def of_labels(cls, labels: np.ndarray, class_count: int) -> "ClassPairs":
        """Return the pairs of one class per image, int64 (n,)."""
        return cls(np.arange(len(labels)), labels, class_count)

    @classmethod
    def above(cls, threshold: float, values: Rows) -> "ClassPairs":
        """Return the pairs for which values, float (n, classes), exceed a threshold."""
        found = [np.flatnonzero(values[rows] > threshold) for rows in row_chunks(values)]
        starts = [rows.start * values.shape[1] for rows in row_chunks(values)]
        cells = np.concatenate([each + start for each, start in zip(found, starts, strict=True)])
        rows, classes = np.divmod(cells, values.shape[1])
        return cls(rows, classes, values.shape[1])

    def are_in(self, others: "ClassPairs", image_count: int) -> np.ndarray:
        """Return whether each pair is among others about the same images: bool (pairs,)."""
        own, their = (each.classes * image_count + each.rows for each in (self, others))
        return np.isin(own, their, assume_unique=True)

    def of_class(self, label: int) -> slice:
        """Return where the pairs of a class are."""
        return slice(*np.searchsorted(self.classes, (label, label + 1)))

    def sums(self, weights: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        """Return the sum over each class's images of weights times values: (samples, classes).

        Args:
            weights: (n, samples).
            values: One for each pair; None: 1.
        """
        sums = np.empty((weights.shape[1], self.class_count))
        for sample, own in enumerate(weights.T):
            drawn = own[self.rows] if values is None else own[self.rows] * values
            sums[sample] = np.bincount(self.classes, drawn, minlength=self.class_count)
        return sums


def in_top_k(scores: Rows, labels: np.ndarray, k: int) -> np.ndarray:
    """Return whether each image's class is among the k with the highest scores: bool (n,).

    Of equal scores the first classes' count as higher, as in argmax.

    Args:
        scores: Float (n, classes).
        labels: int64 (n,).
        k: At least 1.
    """
    found = np.empty(len(labels), bool)
    for rows in row_chunks(scores):
        some, own_labels = scores[rows], labels[rows, np.newaxis]
        own = np.take_along_axis(some, own_labels, 1)
        is_before = np.arange(scores.shape[1]) < own_labels
        found[rows] = ((some > own) | ((some == own) & is_before)).sum(1) < k
    return found


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """Return the number of images by true class (row) and predicted class (column).

    Args:
        labels: int64 (n,).
        predicted: int64 (n,).
        class_count: Number of classes.

    Returns:
        int64 (classes, classes).
    """
    pairs = np.bincount(labels * class_count + predicted, minlength=class_count**2)
    return pairs.reshape(class_count, class_count)


def confusion_cells(labels: np.ndarray, predicted: np.ndarray, class_count: int) -> np.ndarray:
    """Return the cells of the confusion matrix that are not 0.

    Args:
        labels: int64 (n,).
        predicted: int64 (n,).
        class_count: Number of classes.

    Returns:
        int64 (cells, 3): true class, predicted class, images.
    """
    cells, images = np.unique(labels * class_count + predicted, return_counts=True)
    return np.stack([cells // class_count, cells % class_count, images], axis=1)


def class_metrics(
    truth: ClassPairs, predicted: ClassPairs, is_found: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of each class, NaN for a class without images.

    Args:
        truth: The true classes of the images.
        predicted: Their predicted classes.
        is_found: Whether each of the true ones was predicted, bool.
        weights: (n, samples).

    Returns:
        float64 (samples, classes) by name: precision, the share of the images predicted to be of
        the class that are, 0 if there are none; recall, the share of the class's images that were
        predicted to be of it; f1, their harmonic mean; images of the class, and guesses of it.
    """
    correct, images = truth.sums(weights, is_found), truth.sums(weights)
    guesses = predicted.sums(weights)
    return {**class_shares(correct, images, guesses), "images": images, "guesses": guesses}


def class_shares(
    correct: np.ndarray, images: np.ndarray, guesses: np.ndarray
) -> dict[str, np.ndarray]:
    """Return precision, recall and f1 of classes, NaN for a class without images.

    Args:
        correct: Images of each class that were predicted to be of it.
        images: Images of the class.
        guesses: Images that were predicted to be of the class.

    Returns:
        Name → float64, of the shape of the arguments.
    """
    shares = {
        "precision": ratio(correct, guesses, 0.0),
        "recall": ratio(correct, images, 0.0),
        "f1": ratio(2 * correct, guesses + images, 0.0),
    }
    return {name: np.where(images > 0, share, np.nan) for name, share in shares.items()}


def class_average(values: np.ndarray, class_weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean over the classes for which the metric is defined, else NaN.

    Args:
        values: A metric of each class, float64 (samples, classes).
        class_weights: Equal ones for the macro average, its images for the weighted average.

    Returns:
        float64 (samples,).
    """
    weights = np.where(np.isnan(values), 0.0, class_weights)
    return ratio((np.nan_to_num(values) * weights).sum(1), weights.sum(1), np.nan)


def ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    """Return part / whole, or `otherwise` where whole is not above 0."""
    result = np.full(np.shape(part), otherwise, np.float64)
    return np.divide(part, whole, out=result, where=whole > 0)
