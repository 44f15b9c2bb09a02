import keras
import numpy as np
import pytest

from library.training.ema import ExponentialMovingAverage


@pytest.fixture
def network():
    pixels = keras.Input((2,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(pixels))
    return keras.Model(pixels, keras.layers.Dense(1)(x))


def values(network):
    return [each.numpy() for each in network.variables]


def test_the_averages_are_those_by_hand_statistics_too_and_only_within_the_block(network):
    averages = ExponentialMovingAverage(network, decay=0.3)
    expected = values(network)
    for number in range(1, 5):
        for variable in network.variables:
            variable.assign(variable + np.asarray(number, variable.dtype))
        averages.update()
        averages.update(is_update=False)
        # Young averages forget faster: (1 + n) / (10 + n) is below 0.3 for n up to 2.
        decay = min(0.3, (1 + number) / (10 + number))
        expected = [
            decay * average + (1 - decay) * now
            for average, now in zip(expected, values(network), strict=True)
        ]
    own = values(network)
    with averages.in_place():
        for variable, average, mine in zip(network.variables, expected, own, strict=True):
            wanted = average if "float" in variable.dtype else mine
            assert np.allclose(variable, wanted, atol=1e-6), variable.path
    assert all(np.array_equal(a, b) for a, b in zip(values(network), own, strict=True))


def test_an_error_inside_gives_the_weights_back(network):
    averages = ExponentialMovingAverage(network, decay=0.5)
    own = values(network)
    network.variables[0].assign(network.variables[0] + 1)
    changed = values(network)

    def fail():
        with averages.in_place():
            assert np.array_equal(network.variables[0], own[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(np.array_equal(a, b) for a, b in zip(values(network), changed, strict=True))


def test_the_state_is_in_its_variables(network):
    averages = ExponentialMovingAverage(network, decay=0.5)
    floats = [each for each in network.variables if "float" in each.dtype]
    assert len(averages.variables) == len(floats) + 1
    averages.update()
    assert float(averages.variables[-1]) == 1.0
