import keras
import numpy as np

from library.explaining.feature_maps import draw_layers, draw_values
from library.models.layer_graph import flatten_network
from tests.models.test_layer_graph import PIXELS, make_nested


def test_every_layer_is_drawn_with_what_it_gives():
    network = make_nested()
    drawn = {each.name: each for each in draw_layers(flatten_network(network), PIXELS[0])}
    look = network.get_layer("base").get_layer("look")
    given = look(PIXELS[:1] / 255).numpy()[0]
    assert drawn["base/look"].shape == given.shape == (30, 30, 4)
    # Two rows of two maps, a line between them.
    assert drawn["base/look"].drawing.size == (61, 61)
    first = np.asarray(drawn["base/look"].drawing)[:30, :30]
    scaled = (given[..., 0] - given[..., 0].min()) / np.ptp(given[..., 0])
    assert np.abs(first - 255 * scaled).max() <= 1
    assert drawn["scores"].shape == (3,)
    assert drawn["base/stem/deepest"].zeros > 0
    words = drawn["base/stem/deepest"].words
    assert words.startswith("5 maps of 28 x 28, ")
    assert words.endswith("% of the values 0")


def test_dropout_is_left_out():
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten(name="flat")(pixels))
    network = keras.Model(pixels, keras.layers.Dense(2, name="scores")(x))
    names = [each.name for each in draw_layers(flatten_network(network), PIXELS[0, :4, :4, :1])]
    assert names == ["flat", "scores"]


def test_many_and_large_maps_are_drawn_in_part_and_smaller():
    drawing = draw_values(np.zeros((192, 96, 100), np.float32))
    assert drawing.size == (8 * 49 - 1, 8 * 97 - 1)


def test_values_without_places_are_drawn_in_rows():
    drawing = np.asarray(draw_values(np.arange(8, dtype=np.float32)))
    # Two rows of four, each value enlarged.
    assert drawing.shape == (12, 24)
    assert drawing[::6, ::6].tolist() == [[0, 36, 73, 109], [146, 182, 219, 255]]
    assert draw_values(np.zeros((5, 7), np.float32)).size[0] >= 24
    assert draw_values(np.zeros(1, np.float32)).size == (24, 12)
