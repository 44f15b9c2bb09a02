"""Statistics of repeated runs, with SciPy as the oracle."""

import numpy as np
import pytest
from scipy import stats

from library.evaluation.repeated_runs import summarize_values, t_p_value, t_quantile

FREEDOMS = [1, 1.3, 2, 3.7, 4, 9, 30, 99, 5000.5]


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_t_distribution_is_scipys(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    for t in (0, 1e-9, 0.3, -1, 2.5, 12, 400):
        assert t_p_value(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-9)


def test_interval_of_the_mean_is_scipys():
    values = [2.9, 2.92, 2.95, 2.89]
    found = summarize_values([*values, None], is_share=False)
    mean, deviation = np.mean(values), np.std(values, ddof=1)
    wanted = stats.t.interval(0.95, 3, loc=mean, scale=deviation / 2)
    assert (found["mean"], found["standard_deviation"]) == pytest.approx((mean, deviation))
    assert found["mean_interval"] == pytest.approx(wanted)


def test_interval_of_folds_is_that_of_nadeau_and_bengio():
    values = [0.9, 0.92, 0.95, 0.89, 0.93]
    # As scikit-learn's example of comparing models writes it.
    scale = np.std(values, ddof=1) * np.sqrt(1 / 5 + 100 / 400)
    wanted = stats.t.interval(0.95, 4, loc=np.mean(values), scale=scale)
    found = summarize_values(values, folds=5)
    assert found["mean_interval"] == pytest.approx(wanted)


def test_undefined_values_and_bounds():
    assert summarize_values([None, 0.5])["mean_interval"] is None
    assert summarize_values([None])["mean"] is None
    assert summarize_values([1.0, 0.1])["mean_interval"] == (0, 1)
    assert summarize_values([1.0, 0.1], is_share=False)["mean_interval"] > (0, 1.0)
