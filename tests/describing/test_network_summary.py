import keras
import numpy as np
import pytest

from library.describing.network_summary import describe_network
from project.networks.applications import application
from project.networks.hub import hub
from project.networks.residual import residual
from tests.helpers.hub_modules import save_module


@pytest.fixture(scope="module")
def described():
    network = residual((32, 32, 3), 10, residual_layers=20)
    return network, describe_network(network, batch_sizes=(1, 4))


@pytest.mark.slow
def test_the_multiply_adds_are_those_of_the_paper(described):
    # 41 million for ResNet-20 on CIFAR-10, counted by hand from the shapes.
    by_hand = 32 * 32 * 9 * 3 * 16 + 64 * 10
    for size, channels, before in ((32, 16, 16), (16, 32, 16), (8, 64, 32)):
        by_hand += size**2 * 9 * channels * (before + 5 * channels)
    assert described[1].multiply_adds == by_hand
    assert round(by_hand / 1e6) == 41


def test_rows_and_sums(described):
    network, description = described
    assert description.parameters == network.count_params() == 271_098
    assert sum(row.parameters for row in description.rows) == description.parameters
    assert description.trained_parameters == 269_722
    assert description.rows[0].name == "stem_convolution"
    assert description.rows[0].output == "32 x 32 x 16"
    assert [size for size, _ in description.seconds] == [1, 4]
    assert all(seconds > 0 for _, seconds in description.seconds)
    lines = list(description.lines())
    assert lines[-4] == "parameters: 271,098, of which 269,722 are trained"
    assert lines[-1].startswith("time for an image here: ")


def test_activations_are_what_layers_give():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(pixels)
    network = keras.Model(pixels, keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(x)))
    description = describe_network(network, batch_sizes=(1,))
    assert description.activation_bytes == 4 * (6 * 6 * 4 + 2)
    assert description.multiply_adds == 6 * 6 * 4 * 27 + 6 * 6 * 4 * 2


def test_a_module_is_counted_whole(tmp_path):
    save_module(tmp_path)
    network = hub((6, 6, 3), 2, hub_handle=str(tmp_path))
    description = describe_network(network, batch_sizes=(1,))
    assert description.multiply_adds == 3 * 5 + 5 * 256 + 256 * 2
    assert [row.is_trained for row in description.rows] == [False, True, True]


@pytest.mark.slow
def test_a_depthwise_convolution_counts_each_channel_once():
    network = application((32, 32, 3), 2, application="MobileNet", application_weights=None)
    # Howard et al. 2017, table 4: 569 million with a top at 224 pixels, 49 times the area.
    counted = describe_network(network, batch_sizes=(1,)).multiply_adds
    assert np.isclose(counted * 49, 568e6, rtol=0.02)
