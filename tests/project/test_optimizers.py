import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.inputs.examples import without_autotune
from library.messages import ChoiceError
from library.training.parts import NoSchedule, Parts
from library.training.steps import MetricSums, make_train_steps
from project.hyperparameters import Hyperparameters
from project.objective import Objective
from project.optimizers import OPTIMIZERS, OptimizerOptions, make_optimizer

pytestmark = pytest.mark.slow

random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (8, 4, 4, 1), np.uint8)
LABELS = (IMAGES.mean((1, 2, 3)) > 127).astype(np.int64)


def make_network():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(3, 3)(x)
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


def make(network, name="adam", rate=0.1, loss_scale=None, **changes):
    values = Hyperparameters(**changes).model_dump()
    weights = network.trainable_variables
    options = OptimizerOptions(loss_scale=loss_scale)
    optimizer = make_optimizer(name, rate, values, weights, options)
    optimizer.build(weights)
    return optimizer


def train(network, optimizer, steps):
    totals = MetricSums(Objective.names)
    batches = without_autotune(tf.data.Dataset.from_tensors((IMAGES, LABELS))).repeat()
    parts = Parts(network, Objective(), optimizer, NoSchedule(optimizer))
    train_steps = make_train_steps(parts, totals)
    losses, _ = train_steps(iter(batches), steps)
    return losses.numpy()


RATES = {"adadelta": 5.0, "ftrl": 0.5, "adagrad": 0.3, "rmsprop": 0.01, "lion": 0.01}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_learns(name):
    network = make_network()
    losses = train(network, make(network, name, RATES.get(name, 0.05), opt_epsilon=1e-6), 25)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_factors_keep_other_options(name):
    weights = make_network().trainable_variables
    values = Hyperparameters(weight_decay=0.1, clip_norm=1.0).model_dump()
    plain = make_optimizer(name, 0.1, values, weights).get_config()
    options = OptimizerOptions(rate_factors=[(weights[0], 0.5)])
    scaled = make_optimizer(name, 0.1, values, weights, options)
    assert scaled.get_config() | {"name": plain["name"]} == plain


def test_hyperparameters_reach_the_optimizer():
    network = make_network()
    config = make(network, "adam", adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-3).get_config()
    assert (config["beta_1"], config["beta_2"], config["epsilon"]) == (0.8, 0.95, 1e-3)
    config = make(network, "ftrl", ftrl_l1=0.1, ftrl_l2=0.2).get_config()
    assert config["l1_regularization_strength"] == 0.1
    assert config["l2_regularization_strength"] == 0.2
    config = make(network, "rmsprop").get_config()
    assert (config["rho"], config["momentum"], config["epsilon"]) == (0.9, 0.9, 1.0)
    assert make(network, "momentum", nesterov=True).get_config()["nesterov"]
    assert make(network, "muon", momentum=0.7).get_config()["momentum"] == 0.7


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_weight_decay_of_kernels_only(name):
    network = make_network()
    before = [each.numpy() for each in network.trainable_variables]
    optimizer = make(network, name, rate=0.1, weight_decay=0.5)
    weights = network.trainable_variables
    optimizer.apply([tf.zeros(each.shape) for each in weights], weights)
    for weight, old in zip(weights, before, strict=True):
        factor = 1 - 0.1 * 0.5 if len(old.shape) > 1 else 1
        assert np.allclose(weight, factor * old, atol=1e-7), weight.path


def test_accumulation_matches_large_batch():
    large = make_network()
    train(large, make(large, "sgd", weight_decay=0.0), 1)
    small = make_network()
    optimizer = make(small, "sgd", weight_decay=0.0, gradient_accumulation_steps=2)
    batches = without_autotune(tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))).batch(4)
    parts = Parts(small, Objective(), optimizer, NoSchedule(optimizer))
    steps = make_train_steps(parts, MetricSums(Objective.names))
    steps(iter(batches), 2)
    for mine, theirs in zip(small.variables, large.variables, strict=True):
        assert np.allclose(mine, theirs, atol=1e-6)
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("option", [{"clip_norm": 0.01}, {"clip_value": 0.001}])
def test_clipping_limits_update(option):
    network = make_network()
    before = [each.numpy() for each in network.trainable_variables]
    train(network, make(network, "sgd", rate=1.0, weight_decay=0.0, **option), 1)
    updates = [
        weight.numpy() - old
        for weight, old in zip(network.trainable_variables, before, strict=True)
    ]
    norm = np.sqrt(sum((each**2).sum() for each in updates))
    largest = max(np.abs(each).max() for each in updates)
    if "clip_norm" in option:
        assert norm == pytest.approx(0.01, rel=1e-3)
    else:
        assert largest == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("loss_scale", ["dynamic", 128.0])
def test_loss_scale_keeps_update(loss_scale):
    plain = make_network()
    train(plain, make(plain, "momentum"), 3)
    scaled = make_network()
    optimizer = make(scaled, "momentum", loss_scale=loss_scale)
    train(scaled, optimizer, 3)
    for mine, theirs in zip(scaled.variables, plain.variables, strict=True):
        assert np.allclose(mine, theirs, atol=1e-5)
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_clip_norm_and_clip_value_exclude_each_other():
    with pytest.raises(SettingsError, match="clip_norm and clip_value"):
        make(make_network(), clip_norm=1.0, clip_value=1.0)


def test_unknown_name():
    with pytest.raises(ChoiceError, match=r"'adm'.*'adam'"):
        make(make_network(), "adm")
