import keras
import numpy as np
import pytest
import tensorflow as tf

from project.objective import Objective, make_optimizer, make_schedule

SCORES = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]], np.float32)
LABELS = np.array([0, 2], np.int64)
LOG_PROBABILITIES = SCORES - np.log(np.exp(SCORES).sum(1, keepdims=True))


def tiny():
    pixels = keras.Input((2, 2, 1))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))


def test_measures_are_those_by_hand():
    measures = Objective().measures(tf.constant(LABELS), tf.constant(SCORES))
    assert list(measures) == list(Objective.names)
    assert np.allclose(measures["loss"], -LOG_PROBABILITIES[[0, 1], LABELS], atol=1e-6)
    assert measures["accuracy"].numpy().tolist() == [1, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_training_loss_is_that_by_hand(smoothing):
    network = tiny()
    network(np.ones((1, 2, 2, 1), np.float32))
    objective = Objective(label_smoothing=smoothing, l2_regularization=0.1)
    targets = np.full((2, 3), smoothing / 3)
    targets[[0, 1], LABELS] += 1 - smoothing
    cross_entropy = -(targets * LOG_PROBABILITIES).sum(1).mean()
    kernel, bias = network.trainable_variables
    bias.assign([10.0, 10.0, 10.0])  # must not count
    by_hand = cross_entropy + 0.1 * (kernel.numpy() ** 2).sum() / 2
    loss = objective.training_loss(tf.constant(LABELS), tf.constant(SCORES), network)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_what_is_measured_has_no_smoothing():
    plain, smooth = Objective().measures, Objective(label_smoothing=0.5).measures
    assert np.array_equal(plain(LABELS, SCORES)["loss"], smooth(LABELS, SCORES)["loss"])


def rates(schedule, steps):
    return [schedule if isinstance(schedule, float) else float(schedule(step)) for step in steps]


def test_fixed_stays():
    assert rates(make_schedule("fixed", 0.1, total_steps=100), [0, 50, 100]) == [0.1] * 3


def test_fixed_rises_over_its_warm_up():
    schedule = make_schedule("fixed", 0.1, total_steps=100, warmup_steps=10)
    assert rates(schedule, [0, 5, 10, 60, 100]) == pytest.approx([0, 0.05, 0.1, 0.1, 0.1])


def test_cosine_falls_along_half_a_cosine():
    schedule = make_schedule(
        "cosine", 0.1, total_steps=110, warmup_steps=10, end_learning_rate=0.02
    )
    expected = [0, 0.1, 0.02 + 0.08 * (1 + np.cos(np.pi * 0.25)) / 2, 0.06, 0.02, 0.02]
    assert rates(schedule, [0, 10, 35, 60, 110, 200]) == pytest.approx(expected)
    schedule = make_schedule("cosine", 0.1, total_steps=100)
    assert rates(schedule, [0, 50, 100]) == pytest.approx([0.1, 0.05, 0.0], abs=1e-7)


def test_the_optimizer_is_adam_with_its_parameters():
    config = make_optimizer(0.1, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-3).get_config()
    assert (config["beta_1"], config["beta_2"], config["epsilon"]) == (0.8, 0.95, 1e-3)
    assert config["learning_rate"] == pytest.approx(0.1)
