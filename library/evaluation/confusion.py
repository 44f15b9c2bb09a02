"""Metrics that count correct, predicted and true images of each class.

`weights` are (n, samples): how often each image counts in each of several resamples. Metrics come
as (samples,), or (samples, classes). NaN marks what is undefined.
"""

import numpy as np


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of a value per image, float or bool (n,), in each resample: (samples,)."""
    return values.astype(np.float64) @ weights / weights.sum(0, dtype=np.float64)


def in_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return whether each image's class is among the k with the highest scores: bool (n,).

    Of equal scores the first classes' count as higher, as in argmax.

    Args:
        scores: Float (n, classes).
        labels: int64 (n,).
        k: At least 1.
    """
    own = scores[np.arange(len(labels)), labels][:, np.newaxis]
    is_before = np.arange(scores.shape[1]) < labels[:, np.newaxis]
    return ((scores > own) | ((scores == own) & is_before)).sum(1) < k


def one_hot(labels: np.ndarray, class_count: int) -> np.ndarray:
    """Return bool (n, classes): True at each label."""
    return labels[:, np.newaxis] == np.arange(class_count)


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
    truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of each class, NaN for a class without images.

    Args:
        truth: bool (n, classes). If multi-label, any number of a row may be True.
        predicted: bool (n, classes), likewise.
        weights: (n, samples).

    Returns:
        float64 (samples, classes) by name: precision, the share of the images predicted to be of
        the class that are, 0 if there are none; recall, the share of the class's images that were
        predicted to be of it; f1, their harmonic mean; images of the class, and guesses of it.
    """
    # float32 counts exactly up to 16,777,216.
    dtype = np.float32 if len(truth) < 2**24 // 255 else np.float64
    columns = weights.T.astype(dtype)
    correct, guesses, images = (
        (columns @ each.astype(dtype)).astype(np.float64)
        for each in (truth & predicted, predicted, truth)
    )
    shares = {
        "precision": _ratio(correct, guesses, 0.0),
        "recall": _ratio(correct, images, 0.0),
        "f1": _ratio(2 * correct, guesses + images, 0.0),
    }
    defined = {name: np.where(images > 0, share, np.nan) for name, share in shares.items()}
    return {**defined, "images": images, "guesses": guesses}


def class_average(values: np.ndarray, class_weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean over the classes for which the metric is defined, else NaN.

    Args:
        values: A metric of each class, float64 (samples, classes).
        class_weights: Equal ones for the macro average, its images for the weighted average.

    Returns:
        float64 (samples,).
    """
    weights = np.where(np.isnan(values), 0.0, class_weights)
    return _ratio((np.nan_to_num(values) * weights).sum(1), weights.sum(1), np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    result = np.full(np.shape(part), otherwise, np.float64)
    return np.divide(part, whole, out=result, where=whole > 0)
