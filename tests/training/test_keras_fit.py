"""The two engines against each other: the same bits."""

import keras
import pytest

from library.errors import SettingsError
from library.training.distribution import Devices
from library.training.keras_fit import KerasFitTrainer
from tests.helpers.small_run import assert_same, make_run


@pytest.mark.slow
def test_engines_produce_the_same_bits(tmp_path):
    options = {"steps_between_evals": 4, "max_train_steps": 7}
    fit = make_run(tmp_path / "fit", trainer=KerasFitTrainer, **options)
    loop = make_run(tmp_path / "loop", **options)
    fit.fit()
    loop.fit()
    assert_same(fit, loop)
    assert (tmp_path / "fit" / "best" / "model.keras").exists()


def test_calls_end_where_profile_starts_and_stops(tmp_path, capsys):
    options = {"steps_per_execution": 3, "profile_steps": (2, 4), "max_train_steps": 5}
    make_run(tmp_path, trainer=KerasFitTrainer, **options).fit()
    log = capsys.readouterr().err
    assert "Profile of the steps up to 4: " in log
    assert "No profile" not in log
    # Keras takes the batches itself, so nobody measures how long it waits for them.
    assert "waiting for input" not in log


def test_several_workers_are_refused(tmp_path):
    devices = Devices()
    devices.workers = 2
    with pytest.raises(SettingsError, match="engine loop"):
        make_run(tmp_path, trainer=KerasFitTrainer, devices=devices)


def test_steps_are_a_keras_models_train_step(tmp_path):
    run = make_run(tmp_path, trainer=KerasFitTrainer)
    assert isinstance(run.model, keras.Model)
    assert run.model.variables[0] is run.parts.network.variables[0]
