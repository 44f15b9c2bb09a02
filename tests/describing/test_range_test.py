"""The learning-rate range test."""

import numpy as np
import pytest

import run
from library.describing.range_test import HIGHEST, LOWEST, RangeTest, find_learning_rate
from library.errors import DivergedError
from tests.helpers.small_run import make_run


def make_curve():
    """A loss that falls from 1e-4 to 1e-1, fastest at 1e-3, and then rises."""
    exponents = np.linspace(-6, 0, 120)
    losses = 2 - 1 / (1 + np.exp(-3 * (exponents + 3))) + 4 * np.maximum(exponents + 1, 0) ** 2
    return RangeTest(10**exponents, losses)


def test_suggestion_of_a_known_curve():
    curve = make_curve()
    # Smoothing moves both by some updates.
    assert 0.05 < curve.lowest < 0.5
    assert 5e-4 < curve.steepest < 2e-2
    assert curve.suggested == curve.lowest / 10
    assert b"steepest descent" in curve.draw()
    assert curve.draw() == curve.draw()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hyperparameters": {"gradient_accumulation_steps": 2}},
        {"is_cached": True},
    ],
)
def test_rates_rise_until_the_loss_diverges(tmp_path, options):
    """Three batches are an epoch: the test goes through many."""
    run = make_run(tmp_path, **options)
    found = find_learning_rate(run)
    assert found.rates[0] == pytest.approx(LOWEST)
    assert np.allclose(np.diff(np.log(found.rates)), np.log(HIGHEST / LOWEST) / 119, rtol=1e-3)
    assert 20 < len(found.rates) <= 120
    assert not list(tmp_path.iterdir())


def test_loss_that_is_never_finite_is_an_error(tmp_path):
    run = make_run(tmp_path)
    run.parts.network.layers[-1].bias.assign([np.nan, np.nan])
    with pytest.raises(DivergedError, match="preview"):
        find_learning_rate(run)


def test_command_changes_nothing_but_the_curve(options, capsys, tmp_path):
    run.main(["find_learning_rate", *options])
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["learning_rate.svg"]
    assert '"suggested"' in capsys.readouterr().out
