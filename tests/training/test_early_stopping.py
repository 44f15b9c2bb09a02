import math

import pytest

from library.errors import SettingsError
from library.training.early_stopping import EarlyStopping, Monitor


@pytest.mark.parametrize(
    ("mode", "value", "than", "better"),
    [
        ("min", 1.0, 2.0, True),
        ("min", 2.0, 1.0, False),
        ("max", 2.0, 1.0, True),
        ("max", 1.0, 1.0, False),
        ("min", math.inf, None, True),
        ("min", math.nan, None, False),
        ("max", math.nan, 1.0, False),
        ("min", -math.inf, 1.0, True),
    ],
)
def test_better_has_a_direction_and_nan_never_is(mode, value, than, better):
    metric = {"min": "loss", "max": "accuracy"}[mode]
    assert Monitor(metric).is_better(value, than) is better


def test_the_mode_is_the_metrics():
    assert [Monitor(each).mode for each in ("loss", "accuracy", "exact_match")] == [
        "min",
        "max",
        "max",
    ]
    assert Monitor("accuracy", "max") == Monitor("accuracy")
    assert Monitor("mine", "min").mode == "min"
    with pytest.raises(SettingsError, match=r"'acuracy': say whether .*known is that of acc"):
        Monitor("acuracy")
    with pytest.raises(SettingsError, match="mode max would keep the worst: the best loss is its"):
        Monitor("loss", "max")


def judge_all(patience, values, name="loss"):
    return [patience.judge({name: value}) for value in values]


def test_patience_ends_after_evaluations_in_a_row():
    patience = EarlyStopping(Monitor(patience=2))
    judge_all(patience, [3.0, 2.0, 2.5, 1.0, 1.0])
    assert patience.stopped is None
    judge_all(patience, [math.nan])
    assert patience.stopped == "no better validation loss in 2 evaluations"


def test_less_than_min_delta_is_no_improvement():
    patience = EarlyStopping(Monitor(metric="accuracy", mode="max", patience=2, min_delta=0.1))
    judge_all(patience, [0.5, 0.55, 0.59], "accuracy")
    assert patience.stopped


def test_the_learning_rate_falls_once_per_plateau():
    patience = EarlyStopping(Monitor(plateau_patience=2))
    assert judge_all(patience, [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]) == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_the_threshold_is_one_of_accuracy():
    patience = EarlyStopping(Monitor(stop_threshold=0.9))
    patience.judge({"loss": 1.0, "accuracy": 0.89})
    assert patience.stopped is None
    patience.judge({"loss": 1.0, "accuracy": 0.9})
    assert patience.stopped == "validation accuracy 0.9000 reached 0.9"


def test_state_goes_on_where_it_was():
    patience = EarlyStopping(Monitor(patience=3))
    judge_all(patience, [1.0, 2.0, 2.0])
    again = EarlyStopping(Monitor(patience=3))
    again.state.update(patience.state)
    judge_all(again, [2.0])
    assert again.stopped
