"""Training on smaller images first."""

import re

import keras
import pytest

from library.errors import SettingsError, StoppedError
from library.models.functional import allow_image_size
from library.training.keras_fit import KerasFitTrainer
from library.training.trainer import Trainer
from tests.helpers.small_networks import build
from tests.helpers.small_run import Inputs, assert_same, make_run, stopping_run


class ProgressiveInputs(Inputs):
    """Every second pixel in the first epoch."""

    def batches(self, epoch, start_batch=0):
        stride = 1 if epoch else 2
        batches = super().batches(epoch, start_batch)
        return batches.map(lambda images, labels: (images[:, ::stride, ::stride], labels))


def make_network():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 2, padding="same")(keras.layers.Rescaling(1 / 255)(pixels))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    network = keras.Model(pixels, keras.layers.Dense(2, dtype="float32")(x))
    allow_image_size(network, (2, 2, 1))
    return network


OPTIONS = {"network": make_network, "ema_decay": 0.9}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run = make_run(folder, ProgressiveInputs(), **OPTIONS)
    run.fit()
    return run


# In the first epoch and after the change of the size, and between the two.
@pytest.mark.parametrize(
    ("steps", "told"),
    [((2, 4), [["1: 2"], ["1: 2", "2: 4"], []]), ((3,), [["1: 2"], []])],
)
def test_resume_matches_uninterrupted_run(tmp_path, uninterrupted, capsys, steps, told):
    options = {"training": ProgressiveInputs(), **OPTIONS}
    said = []
    for step, trainer in zip(steps, (KerasFitTrainer, Trainer), strict=False):
        with pytest.raises(StoppedError):
            stopping_run(tmp_path, step, trainer=trainer, **options).fit()
        said.append(capsys.readouterr().err)
    run = make_run(tmp_path, trainer=KerasFitTrainer, **options)
    run.fit()
    said.append(capsys.readouterr().err)
    sizes = [re.findall(r"epoch (\d): training on images of (\d)", each) for each in said]
    assert [[": ".join(each) for each in found] for found in sizes] == told
    assert_same(run, uninterrupted)


@pytest.mark.parametrize("name", ["residual", "simple"])
def test_allow_image_size(name):
    network = build(name, (32, 32, 3), 2, residual_layers=20)
    if name == "residual":
        allow_image_size(network, (16, 16, 3))
        assert network(keras.ops.zeros((1, 16, 16, 3))).shape == (1, 2)
    else:
        with pytest.raises(SettingsError, match=r"progressive.*simple.*16 x 16"):
            allow_image_size(network, (16, 16, 3))
