"""Confident learning, against cleanlab on random probabilities."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification import filter as multilabel_filter
from cleanlab.multilabel_classification.rank import get_label_quality_scores as multilabel_scores
from cleanlab.rank import get_label_quality_scores
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from library.cleaning.confident_learning import find_contradictions, flip_rates, score_labels
from library.cleaning.ranking import rank
from library.prediction.image_outputs import ImageOutputs


def make_labels(images, classes, *, share=0.1, confused=False, seed=0):
    """Return (probabilities, labels, true labels) of a calibrated network that learned the flips.

    With `confused`, a class is always taken for the next one.
    """
    random = np.random.default_rng(seed)
    # Classes of unequal difficulty: thresholds differ.
    scores = random.normal(size=(images, classes)) * np.linspace(2, 5, classes)
    powers = np.exp(scores - scores.max(1, keepdims=True))
    true_probabilities = powers / powers.sum(1, keepdims=True)
    drawn = random.random((images, 1)) > true_probabilities.cumsum(1)
    truth = np.minimum(drawn.sum(1), classes - 1)
    labels = truth.copy()
    flipped = random.choice(images, round(share * images), replace=False)
    offsets = 1 if confused else random.integers(1, classes, len(flipped))
    labels[flipped] = (truth[flipped] + offsets) % classes
    flips = np.roll(true_probabilities, 1, axis=1)
    if not confused:
        flips = (1 - true_probabilities) / (classes - 1)
    probabilities = (1 - share) * true_probabilities + share * flips
    return probabilities.astype(np.float32), labels, truth


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_contradictions_are_those_of_cleanlab(classes, seed):
    probabilities, labels, _ = make_labels(400, classes, share=0.2, seed=seed)
    expected = find_label_issues(labels, probabilities, filter_by="confident_learning")
    assert expected.any()
    assert np.array_equal(find_contradictions(probabilities, labels), expected)


def test_contradictions_of_rare_classes():
    # A class of one image, and one without any.
    probabilities, labels, _ = make_labels(60, 4)
    labels[labels >= 2] = 0
    labels[7] = 2
    expected = find_label_issues(labels, probabilities, filter_by="confident_learning")
    assert np.array_equal(find_contradictions(probabilities, labels), expected)
    scores, _ = score_labels(probabilities, labels, flip_rates(probabilities, labels))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_uniform_flips_are_ranked_as_by_self_confidence():
    probabilities, labels, _ = make_labels(3000, 10)
    rates = flip_rates(probabilities, labels)
    off = rates[~np.eye(10, dtype=bool)]
    assert np.ptp(off) < 0.01
    assert np.allclose(rates.sum(1), 1)
    assert np.diag(rates) == pytest.approx(0.9, abs=0.03)
    scores, _ = score_labels(probabilities, labels, rates)
    expected = get_label_quality_scores(labels, probabilities)
    clear = (expected > 1e-3) & (expected < 0.999)
    assert spearmanr(scores[clear], expected[clear]).statistic > 0.999


def test_flips_with_a_pattern_are_found_better_than_by_cleanlab():
    probabilities, labels, truth = make_labels(10_000, 10, confused=True)
    rates = flip_rates(probabilities, labels)
    confused = rates[np.arange(10), (np.arange(10) + 1) % 10]
    assert confused.mean() == pytest.approx(0.1, abs=0.08)
    assert confused.sum() > 0.5 * rates[~np.eye(10, dtype=bool)].sum()
    scores, suggestions = score_labels(probabilities, labels, rates)
    is_wrong = labels != truth
    peers = [
        average_precision_score(
            is_wrong, -get_label_quality_scores(labels, probabilities, method=method)
        )
        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    ]
    assert average_precision_score(is_wrong, -scores) > max(peers) + 0.05
    assert (suggestions != labels).all()
    # Suspecting below 0.5 pays: most of these are wrong, and most suggestions right.
    suspected = scores < 0.5
    assert suspected.sum() > 300
    assert (suggestions[suspected] == truth[suspected]).mean() > 0.5


def test_right_labels_are_not_suspected():
    probabilities, labels, _ = make_labels(3000, 10, share=0)
    sure = probabilities[np.arange(3000), labels] > 0.2
    scores, _ = score_labels(probabilities, labels, flip_rates(probabilities, labels))
    assert (scores[sure] > 0.5).all()


def make_answers(images, classes, *, strength=3, seed=0):
    random = np.random.default_rng(seed)
    truth = random.random((images, classes)) < 0.3
    is_flipped = random.random((images, classes)) < 0.05
    scores = random.normal(size=truth.shape) + np.where(truth, strength, -strength)
    probabilities = (1 / (1 + np.exp(-scores))).astype(np.float32)
    return probabilities, (truth ^ is_flipped).astype(np.float32), is_flipped


def test_multi_label_answers_are_ranked_as_well_as_by_cleanlab():
    probabilities, labels, is_flipped = make_answers(1000, 5)
    names = [f"{number}.jpg" for number in range(1000)]
    ranking = rank(ImageOutputs(names, tuple("abcde"), labels, probabilities, None), None, [])
    lists = [np.flatnonzero(row).tolist() for row in labels]
    is_wrong = is_flipped.any(1)
    expected = multilabel_scores(lists, probabilities)
    found = average_precision_score(is_wrong, -ranking.scores)
    assert found >= average_precision_score(is_wrong, -expected) - 1e-3
    assert np.array_equal(np.sort(ranking.order), np.arange(1000))
    issues = multilabel_filter.find_label_issues(
        lists, probabilities, filter_by="confident_learning"
    )
    assert (ranking.contradicted == issues).mean() > 0.99
    suspected = ranking.is_suspected
    right = labels.astype(bool) ^ is_flipped
    fixed = (ranking.suggestions[suspected] == right[suspected]).all(1)
    assert fixed.mean() > 0.7
