import keras
import numpy as np
import pytest
import tensorflow as tf

from library.choices import ChoiceError
from project.networks import NETWORKS, make_network
from project.settings import Hyperparameters
from tests.test_hub_layer import save_module

DEFAULTS = Hyperparameters().model_dump()


@pytest.fixture
def hyperparameters(tmp_path):
    save_module(tmp_path / "module")
    return {**DEFAULTS, "hub_handle": str(tmp_path / "module"), "fine_tuning": True}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_each_network_takes_pixels_and_gives_float32_logits(name, shape, hyperparameters, tmp_path):
    network = make_network(name, shape, 4, hyperparameters)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
    with tf.GradientTape() as tape:
        scores = network(pixels, training=True)
        loss = tf.reduce_mean(scores**2)
    assert scores.shape == (2, 4)
    assert scores.dtype == tf.float32
    gradients = tape.gradient(loss, network.trainable_variables)
    assert gradients
    assert all(np.isfinite(tf.norm(each)) for each in gradients)
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert np.array_equal(again(pixels), network(pixels))


def test_latest_is_the_last_one(hyperparameters):
    assert make_network("latest", (8, 8, 3), 2, hyperparameters).name == list(NETWORKS)[-1]


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(ChoiceError, match="unknown network 'simpel'; did you mean 'simple'"):
        make_network("simpel", (8, 8, 3), 2, DEFAULTS)


def test_large_images_are_brought_down_to_nine_places():
    network = make_network("simple", (224, 224, 3), 10, DEFAULTS)
    assert network.layers[-1].input.shape[-1] <= 9 * 256
    assert network.count_params() < 2_000_000
