"""Confident learning: which given labels the probabilities contradict, and how often which flips.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels. Journal of
Artificial Intelligence Research 70 (2021), arXiv 1911.00068. Which images contradict their label
follows cleanlab's `find_label_issues(filter_by="confident_learning")`. The score of a label goes
further than cleanlab's: where flips have a pattern, such as shirts labeled as coats, it counts.

The probabilities should come from networks that did not train on the images (cross-validation): a
network that has seen a wrong label believes it.
"""

import numpy as np

from library.evaluation.confusion import row_chunks

# A probability may be this much below a threshold, as in cleanlab.
_TOLERANCE = 1e-6
# Flips are counted among this share of the images that are most probably of a class, if their
# probability is so near to the highest ones of all: of the rest, the network is wrong too often.
_ANCHOR_SHARE, _ANCHOR_CONFIDENCE = 0.2, 0.9
# The uniform rate counts as much as so many images of each class.
_PRIOR_IMAGES = 10
# Labels of hard images differ in a pattern, too: only flips more uneven than this count as one. It
# is chi-square over its degrees of freedom, 1 by chance; found on Fashion-MNIST.
_MIN_UNEVENNESS = 2.25
# The least probability of all classes together.
_MIN_PROBABILITY = 1e-3


def find_contradictions(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which labels confident learning counts as another class, bool (n,).

    An image counts as one of class k if its probability is at least the mean probability of k among
    the images labeled k (equation 2 of the paper); where several classes are, as the most probable
    class. As in cleanlab, the most probable class is never contradicted.

    Args:
        probabilities: (n, classes).
        labels: Class ids, int64 (n,).
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = probabilities[np.arange(len(labels)), labels]
    means = np.bincount(labels, own, minlength=classes) / np.maximum(counts, 1)
    # No probability reaches that of a class without images.
    thresholds = np.where(counts > 0, means, 2) - _TOLERANCE
    found = np.zeros(len(labels), bool)
    for rows in row_chunks(probabilities):
        some, given = probabilities[rows], labels[rows]
        is_confident = some >= thresholds
        best = some.argmax(1)
        counted = np.where(is_confident.sum(1) > 1, best, is_confident.argmax(1))
        found[rows] = is_confident.any(1) & (counted != given) & (best != given)
    return found


def flip_rates(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimate how often an image of one class is labeled as another.

    The labels of the images that are most surely of a class are counted. The rates are shrunk
    towards a uniform one, the more the less Pearson's chi-square speaks for a pattern
    (positive-part James-Stein).

    Args:
        probabilities: (n, classes), two classes or more.
        labels: Class ids, int64 (n,).

    Returns:
        float64 (classes, classes): the rate of images of the row's class with the column's label;
        each row adds up to 1.
    """
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes))
    best, confidence = probabilities.argmax(1), probabilities.max(1)
    order = np.lexsort((-confidence, best))
    starts = np.searchsorted(best[order], np.arange(classes + 1))
    least = _ANCHOR_CONFIDENCE * np.quantile(confidence, 0.99)
    for each in range(classes):
        size = int(np.ceil(_ANCHOR_SHARE * (starts[each + 1] - starts[each])))
        anchors = order[starts[each] : starts[each] + size]
        anchors = anchors[confidence[anchors] >= least]
        counts[each] = np.bincount(labels[anchors], minlength=classes)
    is_off = ~np.eye(classes, dtype=bool)
    totals = counts.sum(1, keepdims=True)
    uniform = (counts[is_off].sum() + 1) / (counts.sum() + 2) / (classes - 1)
    expected = uniform * totals
    cells = np.where(is_off, (counts - expected) ** 2 / np.maximum(expected, 1e-9), 0)
    freedom = classes * (classes - 1) - 1
    lowest = max(_MIN_UNEVENNESS, 1 + 3 * np.sqrt(2 / freedom))
    trust = max(0.0, 1 - lowest / max(cells.sum() / freedom, 1e-9))
    counted = (counts + _PRIOR_IMAGES * uniform) / (totals + _PRIOR_IMAGES)
    rates = np.where(is_off, trust * counted + (1 - trust) * uniform, 0)
    np.fill_diagonal(rates, 1 - rates.sum(1))
    return rates


def score_labels(
    probabilities: np.ndarray, labels: np.ndarray, rates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how probably each label is right, and the class that fits best instead.

    An image of class j has the label i at rate(j, i). So, if p(i) is how often images like this one
    have the label i, a share r = sum over j != i of p(j) rate(j, i) / p(i) of them is wrong. No
    network is so well calibrated that r stays below 1; the score is 1 / (1 + 2 r), which is 0.5
    where r is. With uniform rates, the order is that of p(i) (cleanlab's self-confidence).

    Args:
        probabilities: (n, classes).
        labels: Class ids, int64 (n,).
        rates: As `flip_rates` returns them.

    Returns:
        Scores in [0, 1], float64 (n,), and class ids, int64 (n,).
    """
    scores, suggestions = np.empty(len(labels)), np.empty(len(labels), np.int64)
    lowest = _MIN_PROBABILITY / probabilities.shape[1]
    for rows in row_chunks(probabilities):
        given = labels[rows]
        shares = np.maximum(probabilities[rows], lowest) * rates.T[given]
        at = np.arange(len(given)), given
        own = shares[at]
        scores[rows] = own / (2 * shares.sum(1) - own)
        shares[at] = -1
        suggestions[rows] = shares.argmax(1)
    return scores, suggestions
