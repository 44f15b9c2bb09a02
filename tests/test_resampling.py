import numpy as np
import pytest

from library.evaluation.resampling import interval, once, resamples


def test_each_resample_draws_as_many_images_as_there_are():
    drawn = np.concatenate([*resamples(5000, 1000, seed=3)], axis=1)
    assert drawn.shape == (5000, 1000)
    assert (drawn.sum(0, dtype=int) == 5000).all()
    # The share never drawn is (1 - 1/n)^n.
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.001)
    again = np.concatenate([*resamples(5000, 1000, seed=3)], axis=1)
    assert (drawn == again).all()
    assert once(3).tolist() == [[1], [1], [1]]


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=2000)
    means = np.concatenate([values @ weights / 2000 for weights in resamples(2000, 4000)])
    low, high = interval(means)
    wanted = 1.96 * values.std() / 2000**0.5
    assert high - values.mean() == pytest.approx(wanted, rel=0.07)
    assert values.mean() - low == pytest.approx(wanted, rel=0.07)


def test_resamples_in_which_nothing_is_defined_are_left_out():
    assert interval(np.array([np.nan, 1.0, np.nan])) == (1.0, 1.0)
    assert interval(np.array([np.nan])) is None
    assert interval(np.array([])) is None
