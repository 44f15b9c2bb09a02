import dataclasses

import keras
import pytest

from library.errors import CheckpointError, SettingsError
from library.messages import ChoiceError
from library.saving.snapshots import read_snapshot
from library.training.early_stopping import Monitor
from library.training.plan import Plan, RunPaths
from library.training.train_and_evaluate import train_and_evaluate
from project.objective import Objective
from tests.helpers.small_run import Inputs, Validation, make_network


def train(folder, optimizer="adam", goal=None, **options):
    asked = {key: options.pop(key) for key in ("train_epochs", "resume") if key in options}
    plan = Plan(**{"train_epochs": 2, "goal": goal or Monitor(), **asked})
    paths = RunPaths.below(folder, ("dark", "light"))
    kept = {field.name for field in dataclasses.fields(paths)} & options.keys()
    paths = dataclasses.replace(paths, **{name: options.pop(name) for name in kept})
    inputs = (Inputs(), Validation())
    return train_and_evaluate(
        make_network(), inputs, Objective(), optimizer, plan, paths, **options
    )


@pytest.mark.parametrize("engine", ["loop", "fit"])
def test_it_needs_neither_yaml_nor_a_command_line(tmp_path, engine):
    best = train(tmp_path / engine, engine=engine)
    assert best["epoch"] in (1, 2)
    assert read_snapshot(tmp_path / engine / "best").metrics == best
    assert (tmp_path / engine / "curves.svg").exists()
    assert (tmp_path / engine / "history.csv").read_text().count("\n") == 3


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path, capsys):
    train(tmp_path, train_epochs=1)
    train(tmp_path, keras.optimizers.Adam())
    assert "going on from" in capsys.readouterr().err


def test_an_unknown_engine_is_told_with_the_known_ones(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "project.yaml").write_text("of an earlier run, which stays where it is")
    with pytest.raises(ChoiceError, match=r"unknown engine 'loup'.*fit, loop"):
        train(tmp_path / "run", engine="loup", resume="never")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_a_plateau_needs_a_schedule(tmp_path):
    with pytest.raises(SettingsError, match="plateau_patience needs a learning_rate"):
        train(tmp_path, goal=Monitor(plateau_patience=1))


@pytest.mark.slow
def test_a_refused_start_leaves_the_texts_of_the_run_that_is_there(tmp_path):
    train(tmp_path, train_epochs=1, texts={"project.yaml": "first"})
    with pytest.raises(CheckpointError, match="only there: 'light'"):
        train(tmp_path, texts={"project.yaml": "second"}, classes=("dark",))
    assert (tmp_path / "project.yaml").read_text() == "first"
    train(tmp_path, texts={"project.yaml": "third"})
    assert (tmp_path / "project.yaml").read_text() == "third"


@pytest.mark.slow
def test_never_begins_anew_wherever_the_earlier_run_left_what(tmp_path, capsys):
    folders = {"checkpoints": tmp_path / "models", "best": tmp_path / "best"}
    for number in range(2):
        train(tmp_path / "run", train_epochs=1, resume="never", **folders)
        told = capsys.readouterr().err
        assert "going on" not in told
        moved = [str(tmp_path / f"{name}.1") for name in ("run", "models", "best")]
        assert (f"the earlier run is now in {', '.join(moved)}" in told) == bool(number)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        f"{name}{suffix}" for name in ("run", "models", "best") for suffix in ("", ".1")
    )


def test_curves_that_cant_be_written_are_a_warning(tmp_path, capsys):
    (tmp_path / "curves.svg").mkdir()
    assert train(tmp_path, train_epochs=1)["epoch"] == 1
    assert "warning: no curves.svg (Is a directory); all else is kept" in capsys.readouterr().err


def test_an_unknown_optimizer_is_told(tmp_path):
    with pytest.raises(SettingsError, match="optimizer 'adm' is none of Keras's: give one, or its"):
        train(tmp_path, optimizer="adm")


def test_what_no_training_can_reach_is_refused_before_an_earlier_run_is_set_aside(tmp_path):
    train(tmp_path / "run", train_epochs=1)
    adam = keras.optimizers.Adam(gradient_accumulation_steps=4)
    with pytest.raises(SettingsError, match="4: the training has 3 steps in all, so no weight"):
        train(tmp_path / "run", adam, train_epochs=1, resume="never")
    with pytest.raises(ChoiceError, match="unknown metric 'los'; did you mean 'loss'"):
        train(tmp_path / "run", goal=Monitor("los", "min"), resume="never")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_gradients_that_are_left_over_are_told(tmp_path, capsys):
    train(tmp_path, keras.optimizers.Adam(gradient_accumulation_steps=2), train_epochs=1)
    assert "of 3 steps, the gradients of the last 1 step are left unused" in capsys.readouterr().err
