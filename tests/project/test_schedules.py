import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.messages import ChoiceError
from project.hyperparameters import Hyperparameters
from project.schedules import SCHEDULES, LearningRate, read_steps, sketch


def make(name, total_steps=100, steps_per_epoch=10, **changes):
    values = Hyperparameters(**{"learning_rate": 0.1, **changes}).model_dump()
    return LearningRate(name, values, total_steps=total_steps, steps_per_epoch=steps_per_epoch)


def rates(schedule, steps):
    return schedule(np.array(steps)).numpy().tolist()


def test_fixed():
    assert rates(make("fixed"), [0, 50, 100, 200]) == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up(name):
    schedule = make(name, warmup_epochs=2)
    assert rates(schedule, [0])[0] == 0
    curve = np.array(rates(schedule, range(130)))
    assert np.isfinite(curve).all()
    assert (curve >= 0).all()
    assert curve.max() <= 0.1 + 1e-7
    plain = make(name, warmup_epochs=2)
    halfway = rates(plain, [10])[0] / (rates(make(name, total_steps=80), [0])[0])
    assert halfway == pytest.approx(0.5, abs=0.02)


def test_exponential():
    schedule = make("exponential", learning_rate_decay_factor=0.5, num_epochs_per_decay=2.0)
    assert rates(schedule, [0, 19, 20, 39, 40]) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_polynomial():
    line = make("polynomial", end_learning_rate=0.02)
    assert rates(line, [0, 50, 100, 150]) == pytest.approx([0.1, 0.06, 0.02, 0.02])
    square = make("polynomial", learning_rate_decay_power=2.0)
    assert rates(square, [50]) == pytest.approx([0.025])


def test_step_as_in_the_cifar_tutorial():
    schedule = make("step", learning_rate_steps=("45=0.01", "30=0.1"), total_steps=600)
    found = rates(schedule, [0, 299, 300, 449, 450, 599])
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_cosine():
    schedule = make("cosine", total_steps=110, warmup_epochs=1, end_learning_rate=0.02)
    expected = [0, 0.1, 0.02 + 0.08 * (1 + np.cos(np.pi * 0.25)) / 2, 0.06, 0.02, 0.02]
    assert rates(schedule, [0, 10, 35, 60, 110, 200]) == pytest.approx(expected)


def test_one_cycle():
    schedule = make("one_cycle")
    assert rates(schedule, [0, 15, 30, 65, 100]) == pytest.approx(
        [0.004, 0.052, 0.1, 0.05, 0], abs=1e-6
    )


def test_compiled_step_sees_length_and_factor_change():
    schedule = make("cosine")
    compiled = tf.function(lambda step: schedule(step))
    assert float(compiled(tf.constant(50))) == pytest.approx(0.05)
    schedule.total_steps.assign(50)
    assert float(compiled(tf.constant(25))) == pytest.approx(0.05)
    schedule.factor.assign(0.1)
    assert float(compiled(tf.constant(25))) == pytest.approx(0.005)


def test_epochs_move_with_the_end_except_the_warm_up():
    steps = make("step", learning_rate_steps=("30=0.1", "45=0.01"), total_steps=600)
    stairs = make("exponential", learning_rate_decay_factor=0.5, num_epochs_per_decay=20.0)
    warm = make("fixed", total_steps=600, warmup_epochs=2)
    for schedule in (steps, warm):
        schedule.total_steps.assign(60)
    assert rates(steps, [0, 29, 30, 44, 45, 59]) == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3]
    )
    assert rates(warm, [10, 20]) == pytest.approx([0.05, 0.1])
    stairs.total_steps.assign(10)
    assert rates(stairs, [0, 9]) == pytest.approx([0.1, 0.1])
    # A tenth of the steps is left, so 30 of them count as 300, which are 30 epochs.
    assert rates(stairs, [30]) == pytest.approx([0.05])


def test_schedule_ends_with_the_steps_whose_gradients_are_accumulated():
    schedule = make(
        "polynomial",
        end_learning_rate=0.0,
        learning_rate_decay_power=1.0,
        gradient_accumulation_steps=4,
    )
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=4)
    weight = keras.Variable(0.0)
    for _ in range(100):
        optimizer.apply([tf.constant(1.0)], [weight])
    # The mean of a line from 0.1 to 0 at the last step of each of 25 updates, times their number.
    assert float(weight) == pytest.approx(-0.1 * sum(1 - step / 100 for step in range(3, 100, 4)))


def test_read_steps():
    assert read_steps("learning_rate_steps", ["45=0.01", "30=0.1"]) == [(30.0, 0.1), (45.0, 0.01)]
    with pytest.raises(SettingsError, match="learning_rate_steps: '30'"):
        read_steps("learning_rate_steps", ["30"])


def test_unknown_name():
    with pytest.raises(ChoiceError, match="'cosine'"):
        make("cosin")


def test_sketch():
    line = sketch(make("cosine", warmup_epochs=1), 100, columns=8)
    assert line == "0 ▁█▇▆▄▃▁▁ 0, at most 0.099"
    assert sketch(make("fixed"), 100, columns=4) == "0.1 ████ 0.1, at most 0.1"


def test_get_config_refuses():
    with pytest.raises(NotImplementedError):
        make("fixed").get_config()
