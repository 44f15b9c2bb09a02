from xml.etree import ElementTree

import keras
import numpy as np
import pytest

from library.describing.network_summary import (
    LayerRow,
    NetworkSummary,
    draw_network,
    summarize_network,
)
from tests.helpers.hub_modules import save_module
from tests.helpers.small_networks import build


@pytest.fixture(scope="module")
def summarized():
    network = build("residual", (32, 32, 3), 10, residual_layers=20)
    return network, summarize_network(network, batch_sizes=(1, 4))


@pytest.mark.slow
def test_multiply_adds_are_those_of_the_paper(summarized):
    # 41 million for ResNet-20 on CIFAR-10, counted by hand from the shapes.
    by_hand = 32 * 32 * 9 * 3 * 16 + 64 * 10
    for size, channels, before in ((32, 16, 16), (16, 32, 16), (8, 64, 32)):
        by_hand += size**2 * 9 * channels * (before + 5 * channels)
    assert summarized[1].multiply_adds == by_hand
    assert round(by_hand / 1e6) == 41


def test_rows_and_sums(summarized):
    network, summary = summarized
    assert summary.parameters == network.count_params() == 271_098
    assert sum(row.parameters for row in summary.rows) == summary.parameters
    assert summary.trained_parameters == 269_722
    assert summary.rows[0].name == "stem_convolution"
    assert summary.rows[0].output == "32 x 32 x 16"
    assert [size for size, _ in summary.seconds] == [1, 4]
    assert all(seconds > 0 for _, seconds in summary.seconds)
    lines = list(summary.lines())
    assert lines[-4] == "parameters: 271,098 (269,722 trained)"
    assert lines[-1].startswith("time per image")


def test_activation_bytes():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(pixels)
    network = keras.Model(pixels, keras.layers.Dense(2, use_bias=False)(keras.layers.Flatten()(x)))
    summary = summarize_network(network, batch_sizes=(1,))
    assert summary.activation_bytes == 4 * (6 * 6 * 4 + 2)
    assert summary.multiply_adds == 6 * 6 * 4 * 27 + 6 * 6 * 4 * 2


def test_hub_module_is_counted(tmp_path):
    save_module(tmp_path)
    network = build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path))
    summary = summarize_network(network, batch_sizes=(1,))
    assert summary.multiply_adds == 3 * 5 + 5 * 256 + 256 * 2
    assert [row.is_trainable for row in summary.rows] == [False, True, True]


@pytest.mark.slow
def test_multiply_adds_of_depthwise_convolutions():
    network = build(
        "application", (32, 32, 3), 2, application="MobileNet", application_weights=None
    )
    # Howard et al. 2017, table 4: 569 million with a top at 224 pixels, 49 times the area.
    counted = summarize_network(network, batch_sizes=(1,)).multiply_adds
    assert np.isclose(counted * 49, 568e6, rtol=0.02)


ROWS = (
    LayerRow(1, "base/<odd>", "8 x 8 x 4", 1000, False),
    LayerRow(1, "base/other", "4 x 4 x 4", 24, False),
    LayerRow(2, "scores", "2", 10, True),
)


def test_draw_network_has_a_named_and_colored_box_per_block():
    summary = NetworkSummary(ROWS, 1034, 10, 0, 0, ())
    root = ElementTree.fromstring(draw_network(summary, "hub & more"))
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert texts == [
        "hub & more",
        "trained",
        "frozen",
        "base/<odd> … other",
        "1,024 parameters → 4 x 4 x 4",
        "scores",
        "10 parameters → 2",
    ]
    boxes = [each.attrib for each in root.iter() if each.tag.endswith("rect")][3:]
    assert [each["fill"] for each in boxes] == ["#8d99ae", "#2a9d8f"]
    assert int(boxes[0]["width"]) > int(boxes[1]["width"])
