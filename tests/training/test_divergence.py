import math

import numpy as np
import pytest

from library.errors import DivergedError
from library.training.divergence import check_best, check_losses, check_state, check_validation


def learning_rate_at(step):
    return step / 10


def test_the_first_loss_that_is_no_number_is_named():
    check_losses(np.ones(3, np.float32), 7, learning_rate_at)
    words = r"the loss is inf at step 6, learning rate 0.6: try a smaller --learning_rate"
    with pytest.raises(DivergedError, match=words):
        check_losses(np.array([1, np.inf, np.nan], np.float32), 7, learning_rate_at)


def test_a_validation_that_is_no_number_is_named():
    check_validation({"loss": 1e30}, 3, learning_rate_at)
    words = "the validation loss is nan after step 3, learning rate 0.3: try a smaller"
    with pytest.raises(DivergedError, match=words):
        check_validation({"loss": math.nan, "accuracy": 1.0}, 3, learning_rate_at)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e20])
def test_weights_that_are_no_numbers_are_told(wrong):
    values = [np.zeros(3, np.float32), np.full(2, 2**32 - 1, np.uint32), np.zeros((), np.int64)]
    check_state(values, [*values, np.float32(1e20)], 3, learning_rate_at)
    words = "weights are too large, or no numbers, after step 3, learning rate 0.3: .* are kept"
    with pytest.raises(DivergedError, match=words):
        check_state([*values, np.array([0, wrong], np.float32)], [], 3, learning_rate_at)
    with pytest.raises(DivergedError, match=words):
        check_state(values, [np.float32(np.nan)], 3, learning_rate_at)


def test_no_best_is_told():
    check_best({"value": 1.0}, "loss")
    words = "no evaluation gave a validation accuracy that is a number, so there is no best"
    with pytest.raises(DivergedError, match=words):
        check_best(None, "accuracy")
