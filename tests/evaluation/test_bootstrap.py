import numpy as np
import pytest

from library.evaluation.bootstrap import interval, interval_of_error, once, resamples
from library.evaluation.calibration import Bins


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


@pytest.mark.parametrize(("sureness", "least"), [(1.0, 58), (1.5, 52)])
def test_the_interval_of_a_calibration_error_holds_the_true_one(sureness, least):
    """Of 60 splits 95 % should, told by the error of very many images."""

    def bins(seed, count):
        random = np.random.default_rng(seed)
        sure = random.uniform(0.5, 1, count)
        told = sure**sureness / (sure**sureness + (1 - sure) ** sureness)
        labels = (random.random(count) > sure).astype(int)
        return Bins(np.stack([told, 1 - told], axis=1), labels)

    true = 0.0 if sureness == 1 else bins(99, 200_000).error(once(200_000))[0]
    held = 0
    for seed in range(60):
        found = bins(seed, 400)
        value = found.error(once(400))[0]
        drawn = np.concatenate([found.error(each) for each in resamples(400, 200)])
        low, high = interval_of_error(value, drawn)
        assert low <= value <= high
        held += low <= true <= high
    assert held >= least


def test_resamples_in_which_nothing_is_defined_are_left_out():
    assert interval(np.array([np.nan, 1.0, np.nan])) == (1.0, 1.0)
    assert interval(np.array([np.nan])) is None
    assert interval(np.array([])) is None
