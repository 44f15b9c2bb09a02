"""One network made of several: what it gives, and what can't be one."""

import numpy as np
import pytest

from library.errors import CheckpointError
from library.models.scores import MULTI_LABEL, is_multi_label
from library.prediction.ensemble import combine
from tests.prediction.test_predictor import PIXELS, make, scores_of, softmax


def test_one_network_seen_as_it_is_stays_what_it_is():
    snapshot = make()
    assert combine([snapshot]) is snapshot


def test_the_combined_scores_have_the_mean_probabilities():
    first, second = make(0), make(1)
    combined = combine([first, second], [2.0, 0.5])
    expected = (softmax(scores_of(first) / 2) + softmax(scores_of(second) / 0.5)) / 2
    assert np.allclose(softmax(scores_of(combined)), expected, atol=1e-6)
    assert combined.network.output_shape == (None, 3)


def test_classes_that_may_be_right_together_are_averaged_one_by_one():
    first, second = make(0, head=MULTI_LABEL), make(1, head=MULTI_LABEL)
    combined = combine([first, second])
    assert is_multi_label(combined.network)
    parts = [1 / (1 + np.exp(-np.float64(scores_of(each)))) for each in (first, second)]
    found = 1 / (1 + np.exp(-np.float64(scores_of(combined))))
    assert np.allclose(found, np.mean(parts, axis=0), atol=1e-6)


def test_certainty_stays_finite():
    snapshot = make()
    snapshot.network.layers[-1].kernel.assign(snapshot.network.layers[-1].kernel * 1e5)
    assert np.isfinite(scores_of(combine([snapshot, snapshot]), PIXELS)).all()


def test_an_ensembles_classes_and_images_must_agree():
    with pytest.raises(CheckpointError, match=r"the same classes; .* differs from .* in 'dog'"):
        combine([make(), make(classes=("cat", "eel", "fox"))])
    with pytest.raises(CheckpointError, match=r"same classes; .* in .their order."):
        combine([make(), make(classes=("dog", "cat", "eel"))])
    with pytest.raises(CheckpointError, match=r"\(8, 8, 3\) is not \(9, 9, 3\)"):
        combine([make(), make(size=9)])
    with pytest.raises(CheckpointError, match="must all give several classes an image, or all one"):
        combine([make(), make(head=MULTI_LABEL)])
