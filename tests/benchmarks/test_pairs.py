"""Contenders' processes, ratios of their runs, and the rule for what counts as slower."""

import sys

import numpy as np
import pytest
from scipy import stats

from benchmarks.__main__ import is_slower
from benchmarks.contender import share_of_epochs
from benchmarks.pairs import Contender, ContenderError, Process, Run, compare, sign_test, take_turns
from benchmarks.programs import ROOT


def process(function, *arguments, **options):
    contender = Contender("it", f"tests.helpers.contenders:{function}", arguments, **options)
    return Process(contender, sys.executable, ROOT, {"amount": 4})


def test_processes_take_turns():
    with (
        process("work", "0.05", "{amount}") as served,
        process("work", "0.05", "1", is_fresh=True) as fresh,
    ):
        (one, two), (whole, _) = take_turns((served, fresh), 2)
    assert one.cpu_seconds == pytest.approx(0.05 / 4, rel=0.5)
    assert one.seconds >= 0.05 / 4
    assert two.seconds >= 0.05 / 4
    # Its start and preparation count.
    assert whole.seconds > 0.25
    assert whole.cpu_seconds >= 0.05


def test_failed_contender_is_named_with_its_error():
    with process("fail") as failing, pytest.raises(ContenderError, match=r"it: .*no such data"):
        failing.run()


def test_share_of_epochs_extrapolates_later_epochs():
    # The first epoch of twenty takes 5 s, the next ones 2 s.
    assert share_of_epochs([1.0, 6.0, 8.0, 10.0], 20) == pytest.approx(9 / (5 + 19 * 2))


def runs(seconds):
    return [Run(each, 2 * each, 0.0, 0.0) for each in seconds]


def test_compare_pairs_rounds():
    # The machine is three times as slow in the last round.
    ratio = compare(runs([1.0, 1.0, 3.0]), runs([2.0, 2.2, 6.3]))
    assert ratio.median == ratio.cpu == pytest.approx(2.1)
    assert (ratio.low, ratio.high) == pytest.approx((2.0, 2.2))
    assert ratio.slower_rounds == 0


@pytest.mark.parametrize("rounds", [6, 9])
def test_interval_of_compare_covers_median(rounds):
    random = np.random.default_rng(0)
    ratios = np.exp(random.exponential(1, (1000, rounds)))
    found = [compare(runs(np.ones(rounds)), runs(each)) for each in ratios]
    covered = np.mean([each.low <= 2 <= each.high for each in found])
    assert 0.94 <= covered < 0.995


@pytest.mark.parametrize(("count", "rounds"), [(0, 5), (1, 8), (7, 20)])
def test_sign_test_equals_binomial_test(count, rounds):
    expected = stats.binomtest(count, rounds, alternative="less").pvalue
    assert sign_test(count, rounds) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1.10] * 7 + [0.99], True),
        ([1.10] * 6 + [0.99] * 2, False),  # may be chance
        ([1.02] * 8, False),  # too little to matter
        ([0.9] * 8, False),
        ([1.10] * 5, True),
        ([1.10] * 4, False),
    ],
)
def test_slower_is_more_time_beyond_noise(seconds, expected):
    assert is_slower(compare(runs(seconds), runs([1.0] * len(seconds)))) is expected
