import numpy as np
import pytest
from sklearn import metrics

from library.evaluation.bootstrap import once, resamples
from library.evaluation.roc import Ranking


@pytest.mark.parametrize("decimals", [9, 2, 1, 0])
def test_areas_are_those_of_scikit_learn_with_ties_too(decimals):
    random = np.random.default_rng(decimals)
    truth = random.random(400) < 0.3
    probabilities = (0.4 * truth + 0.6 * random.random(400)).round(decimals)
    roc, pr = Ranking(probabilities, truth).areas(once(400))
    assert roc[0] == pytest.approx(metrics.roc_auc_score(truth, probabilities))
    assert pr[0] == pytest.approx(metrics.average_precision_score(truth, probabilities))

    (weights,) = resamples(400, 3)
    roc, pr = Ranking(probabilities, truth).areas(weights)
    given = {"sample_weight": weights[:, 2]}
    assert roc[2] == pytest.approx(metrics.roc_auc_score(truth, probabilities, **given))
    assert pr[2] == pytest.approx(metrics.average_precision_score(truth, probabilities, **given))


def test_what_is_not_defined_is_nan_without_a_warning():
    probabilities = np.array([0.1, 0.9, 0.5])
    for truth, expected in ((np.zeros(3, bool), np.nan), (np.ones(3, bool), 1.0)):
        roc, pr = Ranking(probabilities, truth).areas(once(3))
        assert np.isnan(roc[0])
        assert pr[0] == pytest.approx(expected, nan_ok=True)
    one = Ranking(probabilities, np.array([False, True, False]))
    drawn_without = np.array([[1, 0], [0, 3], [2, 0]], np.uint8)
    roc, pr = one.areas(drawn_without)
    assert np.isnan(roc).all()
    assert np.isnan(pr[0])
    assert pr[1] == 1
    assert np.isnan(Ranking(np.zeros(0), np.zeros(0, bool)).areas(once(0))).all()
