"""The two engines against each other: the same bits, also when one goes on for the other."""

import os
import signal

import keras
import pytest

from library.errors import DataError, DivergedError, SettingsError, StoppedError
from library.training.keras_fit import KerasFitTrainer
from project.optimizers import OPTIMIZERS
from tests.helpers import small_run
from tests.helpers.small_run import Inputs, assert_same, make_run


@pytest.fixture
def fit(monkeypatch):
    """Makes runs, as make_run, that train through fit."""

    def make(*arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(small_run, "Trainer", KerasFitTrainer)
            return make_run(*arguments, **options)

    return make


RECIPES = {
    "plain": {},
    "averages, momentum": {"average_decay": 0.9, "hyperparameters": {"optimizer": "momentum"}},
    "by steps": {"steps_between_evals": 4, "max_train_steps": 7},
    "several steps at once": {"steps_per_execution": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_both_engines_give_the_same_bits(tmp_path, fit, recipe):
    options = RECIPES[recipe]
    mine, theirs = fit(tmp_path / "fit", **options), make_run(tmp_path / "loop", **options)
    mine.run()
    theirs.run()
    assert_same(mine, theirs)
    assert (tmp_path / "fit" / "best" / "model.keras").exists()


def stop_at(run, step):
    """Let a signal come to a run that trains through fit while it makes `step`."""
    take_in = run._take_in

    def take_in_and_stop(losses, count, stop):
        if run.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        take_in(losses, count, stop)

    run._take_in = take_in_and_stop
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 5, 8])
def test_stopped_and_gone_on_with_by_either_it_is_the_uninterrupted_run(tmp_path, fit, step):
    whole = make_run(tmp_path / "whole")
    whole.run()
    for name, go_on in (("fit", fit), ("loop", make_run)):
        with pytest.raises(StoppedError, match=f"after step {step};"):
            stop_at(fit(tmp_path / name), step).run()
        run = go_on(tmp_path / name)
        run.run()
        assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_so_it_is_with_every_optimizer(tmp_path, fit, name):
    options = {"hyperparameters": {"optimizer": name, "learning_rate": 0.01}}
    whole = fit(tmp_path / "whole", **options)
    whole.run()
    with pytest.raises(StoppedError, match="after step 3;"):
        stop_at(fit(tmp_path / "run", **options), 3).run()
    run = fit(tmp_path / "run", **options)
    run.run()
    assert_same(run, whole)


def test_several_steps_at_once_end_where_a_profile_begins_and_ends(tmp_path, fit, capsys):
    run = fit(tmp_path, steps_per_execution=3, profile_steps=(2, 4), max_train_steps=5)
    run.run()
    said = capsys.readouterr().err
    assert "profile of the steps up to 4: " in said
    assert "no profile" not in said
    # Keras takes the batches itself: nobody knows how long it waits for them.
    assert "waited for input" not in said


def test_a_loss_that_is_no_number_stops_it(tmp_path, fit):
    with pytest.raises(DivergedError, match="learning rate"):
        fit(tmp_path, hyperparameters={"learning_rate": 1e38}).run()


@pytest.mark.slow
def test_fewer_examples_than_the_manifest_says_is_an_error(tmp_path, fit):
    inputs = Inputs(examples=30, batches_per_epoch=4)
    with pytest.raises(DataError, match="epoch 1 ended before batch 4 of 4"):
        fit(tmp_path, inputs).run()


def test_several_workers_are_refused(tmp_path, fit):
    run = fit(tmp_path)
    run.devices.workers = 2
    with pytest.raises(SettingsError, match="use engine loop"):
        run._compile()


def test_the_steps_are_keras_models_own_train_step(tmp_path, fit):
    run = fit(tmp_path)
    assert isinstance(run._model, keras.Model)
    assert run._model.variables[0] is run.network.variables[0]
