import keras
import numpy as np
import pytest
import tensorflow as tf

from project.objective import Objective

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
    losses = objective.training_losses(tf.constant(LABELS), tf.constant(SCORES))
    loss = np.mean(losses) + objective.penalty(network)
    assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_what_is_measured_has_no_smoothing():
    plain, smooth = Objective().measures, Objective(label_smoothing=0.5).measures
    assert np.array_equal(plain(LABELS, SCORES)["loss"], smooth(LABELS, SCORES)["loss"])
