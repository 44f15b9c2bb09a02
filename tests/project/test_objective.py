import keras
import numpy as np
import pytest
import tensorflow as tf

from project.objective import MultiLabelObjective, Objective

SCORES = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]], np.float32)
LABELS = np.array([0, 2], np.int64)
LOG_PROBABILITIES = SCORES - np.log(np.exp(SCORES).sum(1, keepdims=True))


def tiny():
    pixels = keras.Input((2, 2, 1))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))


def test_metrics_by_hand():
    metrics = Objective().metrics(tf.constant(LABELS), tf.constant(SCORES))
    assert list(metrics) == list(Objective.names)
    assert np.allclose(metrics["loss"], -LOG_PROBABILITIES[[0, 1], LABELS], atol=1e-6)
    assert metrics["accuracy"].numpy().tolist() == [1, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_training_loss_by_hand(smoothing):
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


def test_metrics_without_smoothing():
    plain, smooth = Objective().metrics, Objective(label_smoothing=0.5).metrics
    assert np.array_equal(plain(LABELS, SCORES)["loss"], smooth(LABELS, SCORES)["loss"])


MULTI_LABELS = np.array([[1, 0, 1], [0, 0, 0]], np.float32)


def test_multi_label_metrics_match_keras():
    metrics = MultiLabelObjective().metrics(MULTI_LABELS, SCORES)
    assert tuple(metrics) == MultiLabelObjective.names
    ours = keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")
    assert np.allclose(metrics["loss"], ours(MULTI_LABELS, SCORES), atol=1e-6)
    # Correct: the first of three; and, because a score of 0 is not above a half, the first again.
    assert np.allclose(metrics["accuracy"], [1 / 3, 1 / 3])
    assert metrics["exact_match"].numpy().tolist() == [0, 0]
    correct = np.where(MULTI_LABELS > 0, 1.0, -1.0).astype(np.float32)
    assert MultiLabelObjective().metrics(MULTI_LABELS, correct)["exact_match"].numpy().tolist() == [
        1,
        1,
    ]


def test_multi_label_training_loss():
    theirs = keras.losses.BinaryCrossentropy(True, 0.2, reduction="none")
    smooth = MultiLabelObjective(label_smoothing=0.2).training_losses(MULTI_LABELS, SCORES)
    assert np.allclose(smooth, theirs(MULTI_LABELS, SCORES), atol=1e-6)
    first = MultiLabelObjective(class_weights=(3.0, 0.0, 0.0)).training_losses(MULTI_LABELS, SCORES)
    assert np.allclose(first, [np.log1p(np.exp(-2.0)), np.log(2)], atol=1e-6)
