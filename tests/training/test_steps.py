import keras
import numpy as np
import pytest
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.training.evaluator import make_evaluation_step
from library.training.steps import MetricSums, learning_rate_at, make_train_steps
from project.objective import Objective


def test_totals_are_means_over_examples_not_batches():
    totals = MetricSums(("loss", "accuracy"))
    totals.add({"loss": tf.constant([1.0, 2.0, 3.0]), "accuracy": tf.constant([1.0, 1.0, 0.0])})
    totals.add({"loss": tf.constant([10.0]), "accuracy": tf.constant([0.0])})
    assert totals.means() == {"loss": 4.0, "accuracy": 0.5}
    assert totals.examples == 4
    totals.reset()
    assert totals.examples == 0
    assert np.isnan(totals.means()["loss"])


def make(xla, **options):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    network = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(network.trainable_variables)
    totals = MetricSums(Objective.names)
    return (
        network,
        totals,
        make_train_steps(network, Objective(), optimizer, totals, xla=xla, **options),
    )


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
LABELS = np.array([0, 1, 0, 1, 1, 0], np.int64)


def batches(size):
    return iter(without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))).batch(size))


@pytest.mark.parametrize("xla", [False, True])
def test_a_step_is_gradient_descent_by_hand(xla):
    network, totals, train_steps = make(xla)
    kernel, bias = (each.numpy() for each in network.trainable_variables)
    (loss,), waited = train_steps(batches(6), 1)
    flat = IMAGES.reshape(6, 16) / 255
    scores = flat @ kernel + bias
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    slope = (probabilities - np.eye(2)[LABELS]) / 6
    after = [each.numpy() for each in network.trainable_variables]
    assert np.allclose(after[0], kernel - 0.5 * flat.T @ slope, atol=1e-5)
    assert np.allclose(after[1], bias - 0.5 * slope.sum(0), atol=1e-5)
    assert float(loss) == pytest.approx(-np.log(probabilities[range(6), LABELS]).mean(), rel=1e-5)
    assert totals.examples == 6
    assert waited >= 0


def test_several_steps_in_one_call_are_the_steps_one_by_one():
    one, one_totals, one_step = make(xla=False)
    iterator = batches(2)
    single = [float(one_step(iterator, 1)[0][0]) for _ in range(3)]
    many, many_totals, many_steps = make(xla=False, steps_per_execution=3)
    losses, _ = many_steps(batches(2), 3)
    assert losses.numpy().tolist() == single
    assert all(np.array_equal(a, b) for a, b in zip(one.variables, many.variables, strict=True))
    assert one_totals.means() == many_totals.means()


def test_an_evaluation_step_changes_nothing():
    network, totals, _ = make(xla=False)
    before = [each.numpy() for each in network.variables]
    scores = make_evaluation_step(network, Objective(), totals)(
        tf.constant(IMAGES), tf.constant(LABELS)
    )
    assert np.allclose(scores, network(IMAGES.astype(np.float32)), atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(before, network.variables, strict=True))
    assert totals.examples == 6


def test_the_rate_of_an_earlier_step_is_that_of_its_update():
    network, *_ = make(xla=False)
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    weights = network.trainable_variables
    optimizer.build(weights)
    for _ in range(5):
        optimizer.apply([tf.zeros(each.shape) for each in weights], weights)
    rates = [
        learning_rate_at(optimizer, lambda updates: 2 * updates, 5, step) for step in range(1, 6)
    ]
    assert rates == [0, 0, 2, 2, 4]
    assert learning_rate_at(optimizer, object(), 5, 3) == 0.5
