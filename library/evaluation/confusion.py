"""Measures that count: right, guessed and true images of each class.

`weights` are (n, samples), how often each image counts in each of several resamples. Measures come
as (samples,), or (samples, classes). NaN stands for what is not defined.
"""

from dataclasses import dataclass

import numpy as np


def mean(values, weights):
    """Return the mean of a number per image, float (n,): accuracy, where that is 1 or 0."""
    return values.astype(np.float64) @ weights / weights.sum(0, dtype=np.float64)


def is_in_top(scores, labels, k):
    """Say of each image whether its class is among the k likeliest: bool (n,).

    Of equal scores the first classes' count as higher, as argmax has it.
    """
    own = scores[np.arange(len(labels)), labels][:, np.newaxis]
    is_before = np.arange(scores.shape[1]) < labels[:, np.newaxis]
    return ((scores > own) | ((scores == own) & is_before)).sum(1) < k


def one_hot(labels, classes):
    """Return bool (n, classes): True at each label."""
    return labels[:, np.newaxis] == np.arange(classes)


def confusion_matrix(labels, guesses, classes):
    """Return int64 (classes, classes): images by true class (row) and guessed class (column)."""
    pairs = np.bincount(labels * classes + guesses, minlength=classes**2)
    return pairs.reshape(classes, classes)


def confusion_cells(labels, guesses, classes):
    """Return int64 (cells, 3), the same where there are any: true class, guessed class, images."""
    cells, images = np.unique(labels * classes + guesses, return_counts=True)
    return np.stack([cells // classes, cells % classes, images], axis=1)


@dataclass(frozen=True)
class Counts:
    """How many images of each class there are, are guessed to be, and rightly so.

    Each is float64 (samples, classes).
    """

    right: np.ndarray
    guessed: np.ndarray
    support: np.ndarray

    @classmethod
    def of(cls, truth, guesses, weights):
        """Count bool (n, classes), several of which may be True in a row."""
        # float32 counts exactly up to 16,777,216.
        kind = np.float32 if len(truth) < 2**24 // 255 else np.float64
        columns = weights.T.astype(kind)
        counts = (columns @ each.astype(kind) for each in (truth & guesses, guesses, truth))
        return cls(*(each.astype(np.float64) for each in counts))

    @property
    def precision(self):
        """Of the images guessed, the share guessed rightly; 0 where none was guessed."""
        return self._where_there(_ratio(self.right, self.guessed, 0.0))

    @property
    def recall(self):
        """Of the images that there are, the share guessed rightly."""
        return self._where_there(_ratio(self.right, self.support, 0.0))

    @property
    def f1(self):
        """The harmonic mean of precision and recall: 2 right / (guessed + there)."""
        return self._where_there(_ratio(2 * self.right, self.guessed + self.support, 0.0))

    def _where_there(self, values):
        return np.where(self.support > 0, values, np.nan)


def macro(values):
    """Return the mean over classes, each counting the same; those not defined are left out."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(1)
    return _ratio(total, defined.sum(1), np.nan)


def weighted(values, support):
    """Return the mean over classes, each counting as many as it has images."""
    defined = ~np.isnan(values)
    shares = np.where(defined, support, 0.0)
    return _ratio((np.where(defined, values, 0.0) * shares).sum(1), shares.sum(1), np.nan)


def _ratio(part, whole, otherwise):
    result = np.full(np.shape(part), otherwise, np.float64)
    return np.divide(part, whole, out=result, where=whole > 0)
