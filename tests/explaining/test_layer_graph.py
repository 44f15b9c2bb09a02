import keras
import numpy as np
import pytest

from library.explaining.layer_graph import flatten_network
from tests.helpers.small_networks import build

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "last"),
    [
        ("simple", {}, "re_lu"),
        ("simple", {"head": "sigmoid", "standardize_images": True}, "re_lu"),
        ("residual", {"residual_layers": 8}, "stage3_block1_relu"),
    ],
)
def test_flatten_network_gives_the_same_scores(name, options, last):
    network = build(name, (32, 32, 3), 2, **options)
    before = len(network.weights)
    opened = flatten_network(network)
    layer = opened.last_spatial_layer()
    assert layer.name.startswith(last)
    maps, scores = opened.make_model(layer)(PIXELS, training=False)
    assert maps.shape[1:] == layer.output.shape[1:]
    assert np.array_equal(scores, network(PIXELS, training=False))
    assert len(network.weights) == before


def make_nested():
    """A model in a model, and a Sequential in that, as applications have them."""
    keras.utils.set_random_seed(0)
    inner = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, name="look")(inner)
    stem = [keras.layers.Conv2D(5, 3, name="deeper"), keras.layers.ReLU(name="deepest")]
    x = keras.Sequential(stem, name="stem")(x)
    branch = keras.layers.Conv2D(5, 1, name="branch")(x)
    x = keras.layers.Add(name="sum")([x, branch])
    base = keras.Model(inner, keras.layers.GlobalAveragePooling2D(name="pooling")(x), name="base")
    pixels = keras.Input((32, 32, 3))
    x = base(keras.layers.Rescaling(1 / 255)(pixels), training=False)
    return keras.Model(pixels, keras.layers.Dense(3, name="scores")(x))


def test_flatten_nested_models(tmp_path):
    network = make_nested()
    opened = flatten_network(network)
    names = [each.name for each in opened.layers if "rescaling" not in each.name]
    assert names == [
        "base/look",
        "base/stem/deeper",
        "base/stem/deepest",
        "base/branch",
        "base/sum",
        "base/pooling",
        "scores",
    ]
    assert opened.last_spatial_layer().name == "base/sum"
    _, scores = opened.make_model(opened.last_spatial_layer())(PIXELS, training=False)
    assert np.array_equal(scores, network(PIXELS, training=False))
    # Looking on changes nothing of the network.
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(PIXELS, training=False), scores)


def test_unlearned_maps_are_not_the_last_spatial_layer():
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels))
    assert (
        flatten_network(keras.Model(pixels, keras.layers.Dense(2)(x))).last_spatial_layer() is None
    )


def test_maps_beside_learned_layers_are_not_the_last_spatial_layer():
    pixels = keras.Input((4, 4, 1))
    first = keras.layers.Dense(2)(keras.layers.Flatten()(pixels))
    flipped = keras.ops.flip(pixels, 2)
    second = keras.layers.Dense(2)(keras.layers.Flatten()(flipped))
    network = keras.Model(pixels, keras.layers.Add()([first, second]))
    assert flatten_network(network).last_spatial_layer() is None
