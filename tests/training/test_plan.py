import pytest

from library.errors import SettingsError
from library.messages import ChoiceError
from library.training.early_stopping import Monitor
from library.training.plan import Plan


def test_steps_are_those_of_the_epochs_unless_there_are_to_be_fewer():
    assert Plan(train_epochs=3).total_steps(7) == 21
    assert Plan(train_epochs=3, max_train_steps=5).total_steps(7) == 5
    assert Plan(train_epochs=3, max_train_steps=50).total_steps(7) == 21


def test_what_ended_a_training_is_named():
    assert Plan(train_epochs=3).limit(21, 7) == "train_epochs"
    assert Plan(train_epochs=3, max_train_steps=50).limit(21, 7) == "train_epochs"
    assert Plan(train_epochs=3, max_train_steps=5).limit(5, 7) == "max_train_steps"
    assert Plan(train_epochs=3, max_minutes=1.0).limit(9, 7) == "max_minutes"


def check(steps, together=1, **plan):
    return list(Plan(train_epochs=1, **plan).check(steps, together, ("loss", "accuracy")))


def test_a_metric_that_is_not_measured_is_told():
    with pytest.raises(ChoiceError, match="unknown metric 'los'; did you mean 'loss'"):
        check(9, goal=Monitor("los", "min"))


def test_gradients_that_would_change_nothing_are_told():
    assert check(9, 3) == check(9, 9) == check(9, 2, max_minutes=1.0) == []
    words = "gradient_accumulation_steps 4: of 9 steps, the gradients of the last 1 step are left"
    assert check(9, 4)[0].startswith(words)
    with pytest.raises(SettingsError, match="the training has 9 steps in all, so no weight would"):
        check(9, 10)


def test_a_plateau_behind_the_end_is_told():
    assert check(9, goal=Monitor(patience=3, plateau_patience=2)) == []
    (line,) = check(9, goal=Monitor(patience=2, plateau_patience=2))
    assert line.startswith("plateau_patience 2 has no effect: the training stops first")
