"""Images that are the same, or look alike, and have different labels: one of these is wrong."""

from collections.abc import Iterable

import numpy as np

# No score is so sure that other evidence doesn't count.
_MARGIN = 1e-3


def find_disagreements(groups: Iterable[np.ndarray], labels: np.ndarray) -> list[np.ndarray]:
    """Return the groups of images whose labels aren't all the same.

    Args:
        groups: Indices of images that are duplicates of each other.
        labels: (n,) class ids, or (n, classes) zeros and ones.
    """
    return [each for each in groups if (labels[each] != labels[each[0]]).any()]


def settle(scores: np.ndarray, labels: np.ndarray, is_binary: bool) -> np.ndarray:
    """Return the scores of duplicates, given that no two of their different labels are right.

    With independent probabilities that each label is right, that of "label y is right, and all
    others are wrong" is the product over the images; one of these holds, or no label is right.

    Args:
        scores: Probability that the label of each duplicate is right, (m,).
        labels: Its label, (m,).
        is_binary: Whether the labels are the only possible answers, so that one must be right.

    Returns:
        float64 (m,).
    """
    right = np.clip(scores, _MARGIN, 1 - _MARGIN)
    answers, numbers = np.unique(labels, return_inverse=True)
    agrees = numbers == np.arange(len(answers))[:, None]
    logs = np.where(agrees, np.log(right), np.log1p(-right)).sum(1)
    none = [] if is_binary else [np.log1p(-right).sum()]
    powers = np.exp(np.array([*logs, *none]) - max(*logs, *none))
    return (powers / powers.sum())[numbers]
