import numpy as np
import pytest

from library.errors import SettingsError, UserError
from library.prediction.calibrate import check_names, fit_threshold


def brute_force(probabilities, labels, precision):
    """Try every probability; give the lowest that reaches the precision."""
    certainty, right = probabilities.max(1), probabilities.argmax(1) == labels
    good = [each for each in certainty if right[certainty >= each].mean() >= precision]
    return min(good)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("precision", [0.8, 0.9])
def test_it_is_the_lowest_that_reaches_the_precision(seed, precision):
    random = np.random.default_rng(seed)
    # Rounded, so that some are equal; and the surer, the more often right.
    probabilities = random.dirichlet([0.5] * 3, 400).round(2)
    is_right = random.random(400) < probabilities.max(1)
    labels = (probabilities.argmax(1) + ~is_right) % 3
    found = fit_threshold(probabilities, labels, precision)
    assert found.probability == brute_force(probabilities, labels, precision)
    answered = probabilities.max(1) >= found.probability
    assert found.answered == answered.mean()
    assert found.precision == (probabilities.argmax(1) == labels)[answered].mean() >= precision
    assert found.describe().startswith(f"threshold {found.probability:.4f}: on validation, ")


def test_a_precision_out_of_reach_is_said_with_the_best_there_is():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    with pytest.raises(UserError, match=r"no threshold reaches .* of 0.9 .*: 0.5000 is the best"):
        fit_threshold(probabilities, np.array([1, 0]), 0.9)


def test_where_all_may_be_answered_the_threshold_is_none():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert fit_threshold(probabilities, np.array([0, 0]), 0.9) == (0.0, 1.0, 1.0)


def test_a_class_called_unknown_could_not_be_told_from_the_answer():
    check_names(("Unknown", "cat"))
    with pytest.raises(SettingsError, match=r"the class 'unknown' .* or rename the class"):
        check_names(("cat", "unknown"))
