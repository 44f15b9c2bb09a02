import keras
import numpy as np
import pytest
import tensorflow as tf

from library.training.averages import averaged_weights


def make(loss_scaling=False, **options):
    pixels = keras.Input((2,))
    network = keras.Model(pixels, keras.layers.Dense(1)(pixels))
    optimizer = keras.optimizers.SGD(1.0, **options)
    if loss_scaling:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    return network, optimizer


@pytest.mark.parametrize("loss_scaling", [False, True])
def test_the_averages_are_those_by_hand_and_only_within_the_block(loss_scaling):
    network, optimizer = make(loss_scaling, use_ema=True, ema_momentum=0.9)
    weights = network.trainable_variables
    averages = [each.numpy() for each in weights]
    for step in range(4):
        scale = float(optimizer.scale_loss(1.0))
        optimizer.apply([scale * tf.ones(each.shape) for each in weights], weights)
        # The first update is where Keras's averages begin.
        share = 0.9 if step else 0.0
        averages = [
            share * average + (1 - share) * weight.numpy()
            for average, weight in zip(averages, weights, strict=True)
        ]
    own = [each.numpy() for each in weights]
    with averaged_weights(network, optimizer):
        for weight, average in zip(weights, averages, strict=True):
            assert np.allclose(weight, average, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(weights, own, strict=True))


def test_an_error_inside_gives_the_weights_back():
    network, optimizer = make(use_ema=True, ema_momentum=0.5)
    own = [each.numpy() for each in network.trainable_variables]
    weights = network.trainable_variables
    optimizer.apply([tf.zeros(each.shape) for each in weights], weights)

    def fail():
        with averaged_weights(network, optimizer):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(np.array_equal(a, b) for a, b in zip(weights, own, strict=True))


def test_without_averages_nothing_happens():
    network, optimizer = make()
    own = [each.numpy() for each in network.trainable_variables]
    with averaged_weights(network, optimizer):
        for mine, theirs in zip(network.trainable_variables, own, strict=True):
            assert np.array_equal(mine, theirs)
