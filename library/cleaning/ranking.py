"""Rank the images of a split by how probably their label is wrong, from all the evidence there is.

The network's probabilities and the shares of the neighbors that have each class are combined as
their weighted geometric mean; `confident_learning` scores the result; duplicates with different
labels settle which of these is right. For multi-label data, each class is a question of its own
with the answers no and yes, and an image's score is that of its answers' exponential moving average
from the best to the worst, as cleanlab's.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from library.cleaning.confident_learning import find_contradictions, flip_rates, score_labels
from library.cleaning.duplicate_labels import find_disagreements, settle
from library.cleaning.neighbor_votes import NeighborVotes
from library.evaluation.confusion import row_chunks
from library.prediction.image_outputs import ImageOutputs

# A label is suspected below.
SUSPECTED_BELOW = 0.5
# Divided among the classes and added to the probabilities, and to the number of votes, before the
# geometric mean: neither is evidence enough alone.
_PRIOR_PROBABILITY, _PRIOR_VOTES = 0.01, 2
# The weight of the neighbors. From 0.2 to 0.4, wrong labels of Fashion-MNIST are found as well.
_WEIGHT = 0.3
# Fewer neighbors with the answer of a multi-label image make it suspicious.
_FEW_VOTES = 0.1
# cleanlab's default: the worst answer counts four fifths.
_WORST_SHARE = 0.8


@dataclass(frozen=True)
class Ranking:
    """The evidence about the labels of n images.

    Attributes:
        order: Their indices, the worst first, int64 (n,); of equal scores, the first image first.
        scores: Of each image, in [0, 1]; low: the label is probably wrong.
        suggestions: What fits best: class ids, int64 (n,), or zeros and ones (n, classes).
        answers: The class whose answer is the least certain, int64 (n,); the label if not
            multi-label.
        contradicted: Whether confident learning contradicts the label, bool (n,).
        outvoted: Whether the neighbors do, bool (n,).
        votes: The neighbors; None without embeddings.
        duplicates: Groups of duplicates whose labels aren't the same.
    """

    order: np.ndarray
    scores: np.ndarray
    suggestions: np.ndarray
    answers: np.ndarray
    contradicted: np.ndarray
    outvoted: np.ndarray
    votes: NeighborVotes | None
    duplicates: Sequence[np.ndarray]

    @property
    def is_suspected(self) -> np.ndarray:
        """Which labels are more probably wrong than right, bool (n,)."""
        return self.scores < SUSPECTED_BELOW


def rank(
    outputs: ImageOutputs, votes: NeighborVotes | None, groups: Iterable[np.ndarray]
) -> Ranking:
    """Return the Ranking of images.

    Args:
        outputs: What networks say about them.
        votes: What their neighbors are labeled.
        groups: Indices of duplicates.
    """
    duplicates = find_disagreements(groups, outputs.labels)
    make = _rank_answers if outputs.is_multi_label else _rank_labels
    return make(outputs, votes, duplicates)


def _rank_labels(
    outputs: ImageOutputs, votes: NeighborVotes | None, duplicates: Sequence[np.ndarray]
) -> Ranking:
    labels, probabilities = outputs.labels, outputs.probabilities
    evidence = probabilities if votes is None else combine(probabilities, votes.shares, votes.count)
    scores, suggestions = score_labels(evidence, labels, flip_rates(probabilities, labels))
    for group in duplicates:
        scores[group] = settled = settle(scores[group], labels[group], is_binary=False)
        best = labels[group[settled.argmax()]]
        suggestions[group[labels[group] != best]] = best
    outvoted = np.zeros(len(labels), bool)
    if votes is not None:
        outvoted = (votes.shares.argmax(1) != labels) & (votes.shares.max(1) > 0.5)
    return Ranking(
        np.argsort(scores, kind="stable"),
        scores,
        suggestions,
        labels,
        find_contradictions(probabilities, labels),
        outvoted,
        votes,
        duplicates,
    )


def _rank_answers(
    outputs: ImageOutputs, votes: NeighborVotes | None, duplicates: Sequence[np.ndarray]
) -> Ranking:
    images, classes = outputs.probabilities.shape
    scores = np.empty((images, classes), np.float32)
    contradicted, outvoted = np.zeros(images, bool), np.zeros(images, bool)
    for each in range(classes):
        answers = outputs.labels[:, each].astype(np.int64)
        probabilities = _two_answers(outputs.probabilities[:, each])
        evidence = probabilities
        if votes is not None:
            shares = _two_answers(votes.shares[:, each])
            evidence = combine(probabilities, shares, votes.count)
            outvoted |= shares[np.arange(images), answers] < _FEW_VOTES
        of_class, _ = score_labels(evidence, answers, flip_rates(probabilities, answers))
        for group in duplicates:
            if (answers[group] != answers[group[0]]).any():
                of_class[group] = settle(of_class[group], answers[group], is_binary=True)
        scores[:, each] = of_class
        contradicted |= find_contradictions(probabilities, answers)
    worst = scores.argmin(1)
    is_wrong = scores < SUSPECTED_BELOW
    # Where no answer is suspected, the least certain one is the suggestion all the same.
    is_wrong[np.arange(images), worst] = True
    merged = _moving_average(scores)
    return Ranking(
        np.argsort(merged, kind="stable"),
        merged,
        np.where(is_wrong, 1 - outputs.labels, outputs.labels),
        worst,
        contradicted,
        outvoted,
        votes,
        duplicates,
    )


def combine(probabilities: np.ndarray, shares: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of probabilities and of shares of neighbors, float32 (n, classes).

    Args:
        probabilities: Of the classes.
        shares: Of the neighbors that have them.
        count: The number of neighbors.
    """
    evidence = np.empty_like(probabilities)
    classes = probabilities.shape[1]
    prior, votes_prior = _PRIOR_PROBABILITY / classes, _PRIOR_VOTES / max(1, count) / classes
    for rows in row_chunks(probabilities):
        mean = (probabilities[rows] + prior) ** (1 - _WEIGHT)
        mean *= (shares[rows] + votes_prior) ** _WEIGHT
        evidence[rows] = mean / mean.sum(1, keepdims=True)
    return evidence


def confused_pairs(ranking: Ranking, outputs: ImageOutputs) -> list[tuple[str, str, int]]:
    """Return (given, suggested, number of suspected images), the most frequent first.

    For multi-label data, the one is "CLASS" and the other "no CLASS", or the other way around.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    names = outputs.classes
    for image in np.flatnonzero(ranking.is_suspected).tolist():
        if not outputs.is_multi_label:
            given, suggested = outputs.labels[image], ranking.suggestions[image]
            pairs[names[given], names[suggested]] += 1
            continue
        for each in np.flatnonzero(outputs.labels[image] != ranking.suggestions[image]).tolist():
            pair = (names[each], f"no {names[each]}")
            pairs[pair if outputs.labels[image, each] else pair[::-1]] += 1
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return [(*pair, count) for pair, count in ordered]


def _two_answers(probabilities: np.ndarray) -> np.ndarray:
    """Return the probabilities of no and yes, (n, 2)."""
    return np.stack([1 - probabilities, probabilities], axis=1)


def _moving_average(scores: np.ndarray) -> np.ndarray:
    """Return the exponential moving average of each row, from its best to its worst score."""
    ordered = np.sort(scores, axis=1)[:, ::-1]
    average = ordered[:, 0].astype(np.float64)
    for each in range(1, ordered.shape[1]):
        average = _WORST_SHARE * ordered[:, each] + (1 - _WORST_SHARE) * average
    return average
