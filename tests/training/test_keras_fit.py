"""The two engines against each other: the same bits, also when one resumes the other's run."""

import keras
import pytest

from library.errors import SettingsError, StoppedError
from library.training.distribution import Devices
from library.training.keras_fit import KerasFitTrainer
from library.training.trainer import Trainer
from tests.helpers.small_run import assert_same, make_run, stopping_run

RECIPES = {
    "plain": {},
    "ema": {"ema_decay": 0.9, "hyperparameters": {"optimizer": "momentum"}},
    "by steps": {"steps_between_evals": 4, "max_train_steps": 7},
    "steps_per_execution": {"steps_per_execution": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_engines_produce_the_same_bits(tmp_path, recipe):
    options = RECIPES[recipe]
    fit = make_run(tmp_path / "fit", trainer=KerasFitTrainer, **options)
    loop = make_run(tmp_path / "loop", **options)
    fit.fit()
    loop.fit()
    assert_same(fit, loop)
    assert (tmp_path / "fit" / "best" / "model.keras").exists()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("uninterrupted"))
    run.fit()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [Trainer, KerasFitTrainer])
@pytest.mark.parametrize("step", [1, 3, 5, 8])
def test_resume_by_either_engine_matches_uninterrupted_run(tmp_path, uninterrupted, step, trainer):
    with pytest.raises(StoppedError, match=f"step {step}"):
        stopping_run(tmp_path / "run", step, trainer=KerasFitTrainer).fit()
    run = make_run(tmp_path / "run", trainer=trainer)
    run.fit()
    assert_same(run, uninterrupted)


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
