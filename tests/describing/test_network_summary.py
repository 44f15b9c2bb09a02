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


def test_draw_network_shows_every_layer_on_an_explained_scale():
    layers = (*ROWS[:2], LayerRow(1, "base/pool", "4", 0, False), ROWS[2])
    summary = NetworkSummary(ROWS, layers, 1034, 10, 0, 0, ())
    root = ElementTree.fromstring(draw_network(summary, "hub & more"))
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert texts[0] == "hub & more"
    assert "logarithmic" in texts[1]
    assert [each for each in texts if each in ("1", "10", "100", "1,000")]
    assert texts[-11:] == [
        *("base/<odd>", "1,000", "8 x 8 x 4"),
        *("base/other", "24", "4 x 4 x 4"),
        *("base/pool", "4"),
        *("scores", "10", "2"),
    ]
    page, _, _, *bars = [each.attrib for each in root.iter() if each.tag.endswith("rect")]
    assert page["class"] == "page"
    assert [each["class"] for each in bars] == ["frozen", "frozen", "trained"]
    thousand, few, ten = (int(each["width"]) for each in bars)
    assert thousand > few > ten
    # Each digit is as wide as every other.
    hundredfold = thousand - ten
    (style,) = (each.text for each in root.iter() if each.tag.endswith("style"))
    assert "prefers-color-scheme: dark" in style
    ticks = [
        float(each["x"]) for each in (e.attrib for e in root.iter()) if each.get("text-anchor")
    ]
    assert abs(2 * (ticks[1] - ticks[0]) - hundredfold) <= 2


def test_summarize_network_lists_layers_without_weights_in_order():
    inputs = keras.Input((8, 8, 3))
    base = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(2, 3, name="conv"),
            keras.layers.ReLU(name="relu"),
        ],
        name="base",
    )
    x = keras.layers.GlobalAveragePooling2D(name="pool")(base(inputs))
    network = keras.Model(inputs, keras.layers.Dense(2, name="scores")(x))
    summary = summarize_network(network, batch_sizes=(1,))
    assert [(each.name, each.parameters) for each in summary.layers] == [
        ("base/conv", 56),
        ("base/relu", 0),
        ("pool", 0),
        ("scores", 6),
    ]
    assert [each.name for each in summary.rows] == ["base/conv", "scores"]
    assert summary.layers[1].output == "6 x 6 x 2"
