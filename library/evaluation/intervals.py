"""Confidence intervals: how much a metric would vary on other images of the same kind.

Each interval contains its metric, and none claims certainty because a split holds no mistake.

- Shares of images, such as accuracy, have Wilson's interval (Wilson 1927,
  doi 10.1080/01621459.1927.10502953; Brown et al. 2001, doi 10.1214/ss/1009213286).
- F1 has that of the Jaccard index J, a share too: F1 = 2 J / (1 + J) (Hand et al. 2021,
  doi 10.1007/s10994-021-05964-1).
- Areas under curves and averages over classes have Wilson's interval for as many images as would
  give them their variance (Korn and Graubard 1998, Survey Methodology 24). Percentiles of resamples
  are biased for them: an image drawn twice is found twice. The variance of averages is that of
  bootstrap resamples: n of n images, drawn with replacement (Efron 1979,
  doi 10.1214/aos/1176344552), which comes to counting how often each image was drawn.
- Losses have percentiles of the same resamples, corrected for bias and skewness: BCa (Efron 1987,
  doi 10.1080/01621459.1987.10478410).
- Calibration errors need another interval, because chance adds to a mean of absolute differences
  (Roelofs et al. 2022, arXiv 2012.08668): once in the split, and again in each resample of it. The
  basic bootstrap, percentiles reversed at the value (Davison and Hinkley 1997, Bootstrap Methods
  and their Application, 5.2), subtracts that again. It is applied to squares, to which chance adds.
  On 300 to 5,000 synthetic images such intervals contained the true error in 89 to 100 of 100
  cases; plain percentiles of a calibrated network contained it in none.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
_MARGIN = (1 - CONFIDENCE) / 2
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(1 - _MARGIN)
# Weights (images times resamples) in one array: few enough to stay in the processor's cache.
_MAX_WEIGHTS = 500_000
# Anything lower comes from rounding.
_MIN_VARIANCE = 1e-18


def unit_weights(image_count: int) -> np.ndarray:
    """Return the weights of the split itself: float64 (images, 1), all 1."""
    return np.ones((image_count, 1))


def bootstrap_weights(image_count: int, samples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each image was drawn: float64 (images, some), `samples` columns in all.

    Args:
        image_count: Number of images in the split, and in each resample.
        samples: Number of resamples.
        seed: Seed of the draws.
    """
    random = np.random.default_rng(seed)
    most = max(1, _MAX_WEIGHTS // max(image_count, 1))
    for start in range(0, samples, most):
        count = min(most, samples - start)
        # A resample lies in one piece, so that reading it is fast.
        weights = np.empty((count, image_count))
        for resample in weights:
            drawn = random.integers(image_count, size=image_count)
            resample[:] = np.bincount(drawn, minlength=image_count)
        yield weights.T


def wilson_interval(
    share: np.ndarray | float, count: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of shares in [0, 1] of `count` images each, NaN where a share is NaN.

    A share of no images may be anything: 0 to 1.
    """
    squared = _Z**2 / np.maximum(count, 1e-9)
    center = (share + squared / 2) / (1 + squared)
    variance = np.maximum(share * (1 - np.asarray(share)), 0)
    half = np.sqrt(squared * variance + squared**2 / 4) / (1 + squared)
    # Rounding must not exclude a share of 0 or 1.
    return np.minimum(center - half, share).clip(0), np.maximum(center + half, share).clip(max=1)


def share_interval(share: float, count: float) -> tuple[float, float] | None:
    """Return Wilson's interval of one share, or None if it is NaN."""
    low, high = map(float, wilson_interval(share, count))
    return None if np.isnan(share) else (low, high)


def f1_interval(f1: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (low, high) of F1 scores, of `count` images each that are or were predicted as one."""
    low, high = wilson_interval(f1 / (2 - f1), count)
    return np.minimum(2 * low / (1 + low), f1), np.maximum(2 * high / (1 + high), f1)


def effective_count(
    share: np.ndarray | float, variance: np.ndarray | float, least: np.ndarray | float
) -> np.ndarray:
    """Return of how many images a share would have a variance.

    Args:
        share: In [0, 1].
        variance: Of the share.
        least: The count where there is no variance, as without any mistake.
    """
    is_known = np.asarray(variance) > _MIN_VARIANCE
    spread = share * (1 - np.asarray(share))
    return np.where(is_known, spread / np.where(is_known, variance, 1), least)


def mean_interval(images: np.ndarray, means: np.ndarray) -> tuple[float, float] | None:
    """Return (low, high) around a mean, or None if it does not vary, as with a single image.

    Args:
        images: The value of each image, float (n,).
        means: The mean in each resample, float (samples,), none of them NaN.
    """
    mean = float(images.mean(dtype=np.float64))
    distances = images - mean
    squares = (distances**2).sum()
    if not squares > 0 or means.min() == means.max():
        return None
    acceleration = (distances**3).sum() / (6 * squares**1.5)
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 1 / (len(means) + 1)), len(means) / (len(means) + 1)))
    points = [bias + (bias + z) / (1 - acceleration * (bias + z)) for z in (-_Z, _Z)]
    low, high = np.quantile(means, list(map(_NORMAL.cdf, points))).tolist()
    return min(low, mean), max(high, mean)


def calibration_error_interval(value: float, values: np.ndarray) -> tuple[float, float]:
    """Return (low, high) around a calibration error, by the basic bootstrap of its square.

    Args:
        value: The error on the split itself. The interval contains it.
        values: The error in each resample, float (samples,), none of them NaN.
    """
    low, high = np.quantile(values, (_MARGIN, 1 - _MARGIN)).tolist()
    square = value**2
    return max(0.0, 2 * square - high**2) ** 0.5, max(square, 2 * square - low**2) ** 0.5
