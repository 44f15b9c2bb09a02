"""Ranking metrics: how well a class's probability separates its images from all others.

ROC AUC is the probability that an image of the class gets a higher one than another image, ties
counting half (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747). PR AUC is average
precision: the sum of each rise in recall times the precision there (Manning et al., Introduction to
Information Retrieval, 8.4), without interpolation.

Either is the mean of a number per image of the class: the share of the other images that it ranks
above, and the precision at its rank. A resample of the images changes that mean, and each number a
little, in proportion to how often other images were drawn (Efron 1982, The Jackknife, the Bootstrap
and Other Resampling Plans, 6: the infinitesimal jackknife). So classes are ranked once for all
resamples, and the variance of ROC AUC is that of DeLong et al. 1988 (doi 10.2307/2531595).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Area:
    """The area under a curve of one class.

    Attributes:
        own: The number of each image of the class, in the split's order; the area is their mean.
        slopes: How fast the area grows with the weight of each image, through the numbers of other
            images: float64 (n,).
        variance: Of the area, on other images of the same kind.
    """

    own: np.ndarray
    slopes: np.ndarray
    variance: float


def class_areas(probabilities: np.ndarray, truth: np.ndarray) -> tuple[Area, Area]:
    """Return ROC AUC and PR AUC of a class.

    Args:
        probabilities: Of the class, float (n,).
        truth: Which images are of the class, bool (n,): at least one. If all are, ROC AUC is NaN.
    """
    order = np.argsort(-probabilities)
    ranked, is_own = probabilities[order], truth[order]
    # Images of equal probability share a rank, so a threshold lies only at the end of a group.
    is_start = np.append(True, ranked[1:] != ranked[:-1])
    group = np.cumsum(is_start) - 1
    starts = np.flatnonzero(is_start)
    ends = np.append(starts[1:], len(ranked))
    own_until = np.append(0, np.cumsum(is_own))
    own_from, own_to = own_until[starts], own_until[ends]
    rest_from, rest_to = starts - own_from, ends - own_to
    own, rest = own_to[-1], rest_to[-1]
    precision, rises = own_to / ends, (own_to - own_from) / ends
    # Each image adds to the precision at its own rank and at those below it, or takes from it.
    gains, losses = (each[::-1].cumsum()[::-1] for each in (rises, rises * precision))
    slopes = np.empty((2, len(order)))
    slopes[1, order] = (is_own * gains[group] - losses[group]) / own
    if rest:
        below = 1 - (rest_from + rest_to) / (2 * rest)
        above = (own_from + own_to) / (2 * own)
        mean = (below * (own_to - own_from)).sum() / own
        slopes[0, order] = np.where(is_own, 0, above[group] - mean) / rest
    else:
        below, slopes[0] = np.full(len(starts), np.nan), 0
    numbers = np.empty((2, len(order)))
    numbers[:, order] = below[group], precision[group]
    roc, pr = (
        Area(each[truth], slope, _variance(each, slope, truth))
        for each, slope in zip(numbers, slopes, strict=True)
    )
    return roc, pr


def _variance(numbers: np.ndarray, slopes: np.ndarray, truth: np.ndarray) -> float:
    """Return the variance of an area, as if one more image of each kind varied most.

    That is all that is known of a single image, and counts for little with many.
    """
    own, mean = int(truth.sum()), numbers[truth].mean()
    effects = slopes + np.where(truth, numbers - mean, 0) / own
    variance = 0.0
    for kind, count in ((truth, own), (~truth, len(truth) - own)):
        if count:
            squares = (effects[kind] ** 2).sum()
            variance += squares * count / max(count - 1, 1) + mean * (1 - mean) / count**2
    return variance
