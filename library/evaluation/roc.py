"""Ranking metrics: how well a class's probability separates its images from all others.

ROC AUC is the probability that an image of the class gets a higher one than another image, ties
counting half (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747). PR AUC is average
precision: the sum of each rise in recall times the precision there (Manning et al., Introduction to
Information Retrieval, 8.4), without interpolation.
"""

import numpy as np


class Ranking:
    """One class's images in the order of its probability, sorted once for all resamples."""

    def __init__(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Sort the images.

        Args:
            probabilities: Of the class, float (n,).
            truth: Which images are of the class, bool (n,).
        """
        self._order = np.argsort(-probabilities, kind="stable")
        ranked, is_own = probabilities[self._order], truth[self._order]
        # Images of equal probability share a rank, so a threshold lies only at the end of a group.
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], len(ranked) > 0))
        starts = np.append(0, ends[:-1] + 1)[: len(ends)]
        own = np.append(0, np.cumsum(is_own))
        # Recall rises only in groups that hold images of the class.
        rises = own[ends + 1] > own[starts]
        self._starts, self._ends = starts[rises], ends[rises]
        self._own = np.flatnonzero(is_own)
        self._own_starts, self._own_ends = own[self._starts], own[self._ends + 1]

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (ROC AUC, PR AUC), float64 (samples,) each, for weights uint8 (n, samples).

        NaN if a resample holds no image of the class, or, for ROC AUC, no other image.
        """
        undefined = np.full(weights.shape[1], np.nan)
        if not len(self._own):
            return undefined, undefined
        if len(self._own) == len(self._order):
            # With nothing but the class, any order of it is perfectly precise.
            return undefined, np.ones(weights.shape[1])
        ranked = weights[self._order]
        above = _cumulative(ranked)
        own_above = _cumulative(ranked[self._own])
        all_to, all_from = above[self._ends + 1], above[self._starts]
        own_to, own_from = own_above[self._own_ends], own_above[self._own_starts]
        own, rest = own_above[-1].astype(np.float64), (above[-1] - own_above[-1]).astype(np.float64)
        rises = (own_to - own_from).astype(np.float64)
        rest_to, rest_from = all_to - own_to, all_from - own_from
        wins = (rises * (rest - (rest_to + rest_from) / 2)).sum(0)
        roc = np.divide(wins, own * rest, out=undefined.copy(), where=(own > 0) & (rest > 0))
        precision = np.divide(own_to, all_to, out=np.zeros(own_to.shape), where=all_to > 0)
        pr = np.divide((rises * precision).sum(0), own, out=undefined.copy(), where=own > 0)
        return roc, pr


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """Return int32 (n + 1, samples): the sum of all rows before each row, and of all."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]), np.int32)
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
