import numpy as np
import pytest
from sklearn import metrics

from library.evaluation.bootstrap import once, resamples
from library.evaluation.confusion import (
    Counts,
    confusion_cells,
    confusion_matrix,
    is_in_top,
    macro,
    mean,
    one_hot,
    weighted,
)

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 4, 300)
SCORES = (RANDOM.normal(size=(300, 5)) + 1.5 * np.eye(5)[LABELS]).round(1)  # With ties.
SCORES[:, 3] -= 9  # A class that is never guessed, beside one that there is not: 4.
GUESSES = SCORES.argmax(1)


def counts(weights=None):
    weights = once(300) if weights is None else weights
    return Counts.of(one_hot(LABELS, 5), one_hot(GUESSES, 5), weights)


def sklearn_scores(**how):
    return metrics.precision_recall_fscore_support(LABELS, GUESSES, zero_division=0, **how)


def test_accuracy_is_exactly_that_of_scikit_learn():
    assert mean(LABELS == GUESSES, once(300))[0] == metrics.accuracy_score(LABELS, GUESSES)


def test_precision_recall_and_f1_of_each_class():
    found, expected = counts(), sklearn_scores(labels=range(5))
    for ours, theirs in zip((found.precision, found.recall, found.f1), expected, strict=False):
        assert ours[0, :4] == pytest.approx(theirs[:4])
        assert np.isnan(ours[0, 4]), "a class without images has no measure"
    assert found.support[0].tolist() == expected[3].tolist()
    assert found.precision[0, 3] == 0, "there, but never guessed"


@pytest.mark.parametrize("average", ["macro", "weighted"])
def test_means_over_the_classes_that_there_are(average):
    found, expected = counts(), sklearn_scores(labels=range(4), average=average)
    for ours, theirs in zip((found.precision, found.recall, found.f1), expected, strict=False):
        value = macro(ours) if average == "macro" else weighted(ours, found.support)
        assert value[0] == pytest.approx(theirs)


def test_weights_are_as_good_as_repeating_images():
    (weights,) = resamples(300, 2)
    rows = np.repeat(np.arange(300), weights[:, 1])
    expected = metrics.recall_score(LABELS[rows], GUESSES[rows], labels=range(4), average=None)
    assert counts(weights).recall[1, :4] == pytest.approx(expected)
    assert mean(LABELS == GUESSES, weights)[1] == (LABELS == GUESSES)[rows].mean()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_k(k):
    scores = RANDOM.normal(size=(300, 5))
    expected = metrics.top_k_accuracy_score(LABELS, scores, k=k, labels=range(5))
    assert is_in_top(scores, LABELS, k).mean() == expected


def test_of_equal_scores_the_first_is_the_higher_one():
    assert is_in_top(np.zeros((3, 3)), np.arange(3), 2).tolist() == [True, True, False]
    assert (is_in_top(SCORES, LABELS, 1) == (GUESSES == LABELS)).all()


def test_the_confusion_matrix():
    expected = metrics.confusion_matrix(LABELS, GUESSES, labels=range(5))
    assert (confusion_matrix(LABELS, GUESSES, 5) == expected).all()
    cells = [[*each, expected[tuple(each)]] for each in np.argwhere(expected).tolist()]
    assert confusion_cells(LABELS, GUESSES, 5).tolist() == cells


def test_nothing_at_all_is_defined_without_a_warning():
    empty = Counts.of(np.zeros((0, 2), bool), np.zeros((0, 2), bool), once(0))
    assert np.isnan(macro(empty.f1)).all()
    assert np.isnan(weighted(empty.f1, empty.support)).all()
