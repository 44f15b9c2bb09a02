"""Optimization steps, evaluation steps and moving averages against computations by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.inputs.examples import without_autotune
from library.training.ema import ExponentialMovingAverage
from library.training.evaluator import Evaluator
from library.training.parts import NoSchedule, Parts
from library.training.steps import MetricSums, learning_rate_at, make_train_steps
from project.objective import Objective
from tests.helpers.small_run import Validation


def test_metric_sums():
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
    parts = Parts(network, Objective(), optimizer, NoSchedule(optimizer))
    return network, totals, make_train_steps(parts, totals, xla=xla, **options)


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
LABELS = np.array([0, 1, 0, 1, 1, 0], np.int64)


def batches(size):
    return iter(without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))).batch(size))


@pytest.mark.parametrize("xla", [False, True])
def test_step_is_gradient_descent(xla):
    network, totals, train_steps = make(xla)
    kernel, bias = (each.numpy() for each in network.trainable_variables)
    (loss,), input_wait = train_steps(batches(6), 1)
    flat = IMAGES.reshape(6, 16) / 255
    scores = flat @ kernel + bias
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    slope = (probabilities - np.eye(2)[LABELS]) / 6
    after = [each.numpy() for each in network.trainable_variables]
    assert np.allclose(after[0], kernel - 0.5 * flat.T @ slope, atol=1e-5)
    assert np.allclose(after[1], bias - 0.5 * slope.sum(0), atol=1e-5)
    assert float(loss) == pytest.approx(-np.log(probabilities[range(6), LABELS]).mean(), rel=1e-5)
    assert totals.examples == 6
    assert input_wait >= 0


def test_steps_per_execution_matches_single_steps():
    one, one_totals, one_step = make(xla=False)
    iterator = batches(2)
    single = [float(one_step(iterator, 1)[0][0]) for _ in range(3)]
    many, many_totals, many_steps = make(xla=False, steps_per_execution=3)
    losses, _ = many_steps(batches(2), 3)
    assert losses.numpy().tolist() == single
    assert all(np.array_equal(a, b) for a, b in zip(one.variables, many.variables, strict=True))
    assert one_totals.means() == many_totals.means()


def test_evaluator_changes_nothing():
    network, *_ = make(xla=False)
    before = [each.numpy() for each in network.variables]
    Evaluator(network, Objective()).evaluate(Validation(IMAGES, LABELS))
    assert all(np.array_equal(a, b) for a, b in zip(before, network.variables, strict=True))


def test_learning_rate_at_earlier_step():
    network, *_ = make(xla=False)
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2)
    weights = network.trainable_variables
    optimizer.build(weights)
    for _ in range(5):
        optimizer.apply([tf.zeros(each.shape) for each in weights], weights)
    parts = Parts(network, Objective(), optimizer, lambda steps: 2 * steps)
    rates = [learning_rate_at(parts, 5, step) for step in range(1, 6)]
    assert rates == [2, 2, 6, 6, 10]
    parts = Parts(network, Objective(), optimizer, NoSchedule(optimizer))
    assert learning_rate_at(parts, 5, 3) == 0.5


@pytest.mark.parametrize("batch_size", [1, 4, 10, 16])
def test_evaluator_counts_each_example_once(batch_size):
    network, *_ = make(xla=False)
    inputs = Validation(*(np.concatenate([each, each[:4]]) for each in (IMAGES, LABELS)))
    inputs.batch_size = batch_size
    evaluator = Evaluator(network, Objective())
    means, examples = evaluator.evaluate(inputs)
    images, labels = inputs.data
    correct = network(images.astype(np.float32)).numpy().argmax(1) == labels
    assert examples == 10
    assert means["accuracy"] == correct.mean()
    assert evaluator.evaluate(inputs) == (means, 10), "a second time must not add to the first"
    _, few = evaluator.evaluate(inputs, max_steps=1)
    assert few == min(batch_size, 10)


@pytest.fixture
def network():
    pixels = keras.Input((2,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(pixels))
    return keras.Model(pixels, keras.layers.Dense(1)(x))


def values(network):
    return [each.numpy() for each in network.variables]


def test_ema_by_hand(network):
    """Statistics are averaged too, random seeds are not; all only within the block."""
    ema = ExponentialMovingAverage(network, decay=0.3)
    expected = values(network)
    for number in range(1, 5):
        for variable in network.variables:
            variable.assign(variable + np.asarray(number, variable.dtype))
        ema.update()
        ema.update(is_update=False)
        # Young averages forget faster: (1 + n) / (10 + n) is below 0.3 for n up to 2.
        decay = min(0.3, (1 + number) / (10 + number))
        expected = [
            decay * average + (1 - decay) * now
            for average, now in zip(expected, values(network), strict=True)
        ]
    own = values(network)
    with ema.in_place():
        for variable, average, mine in zip(network.variables, expected, own, strict=True):
            wanted = average if "float" in variable.dtype else mine
            assert np.allclose(variable, wanted, atol=1e-6), variable.path
    assert all(np.array_equal(a, b) for a, b in zip(values(network), own, strict=True))


def test_ema_restores_weights_after_an_error(network):
    ema = ExponentialMovingAverage(network, decay=0.5)
    own = values(network)
    network.variables[0].assign(network.variables[0] + 1)
    changed = values(network)

    def fail():
        with ema.in_place():
            assert np.array_equal(network.variables[0], own[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(np.array_equal(a, b) for a, b in zip(values(network), changed, strict=True))


def test_ema_variables(network):
    ema = ExponentialMovingAverage(network, decay=0.5)
    floats = [each for each in network.variables if "float" in each.dtype]
    assert len(ema.variables) == len(floats) + 1
    ema.update()
    assert float(ema.variables[-1]) == 1.0
