"""The plan of a run, and its folders."""

import dataclasses
import os
import re
import shutil

import pytest

from library.errors import CheckpointError, SettingsError, UserError
from library.messages import ChoiceError
from library.saving.checkpoints import Checkpoints
from library.training import run_directory
from library.training.early_stopping import Monitor
from library.training.run_directory import check_space, locked_run, write_texts
from tests.helpers.small_run import make_paths, make_plan


@pytest.fixture
def paths(tmp_path):
    return make_paths(tmp_path / "out" / "run")


def fill(paths, text):
    """What a run leaves: a file, a checkpoint, a best."""
    write_texts(paths.run_dir, {"a.yaml": text})
    Checkpoints(paths.checkpoints, 3).save(1, [], {"text": text})
    paths.best.mkdir(parents=True)
    (paths.best / "metrics.json").write_text(text)


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def write_run(folder, model_dir="null"):
    """Write what a run records, and its history."""
    folder.mkdir(parents=True)
    text = f"default:\n  run_dir: {folder}\n  model_dir: {model_dir}\n"
    (folder / "project.yaml").write_text(text)
    (folder / "history.csv").write_text("epoch\n1\n")
    (folder / "best").mkdir()
    (folder / "best" / "project.yaml").write_text(text)


def test_folders_of_another_run_are_refused(paths, tmp_path):
    write_run(paths.run_dir)
    elsewhere = tmp_path / "elsewhere"
    for other in (
        dataclasses.replace(paths, checkpoints=elsewhere / "checkpoints", best=elsewhere / "best"),
        dataclasses.replace(paths, run_dir=elsewhere, checkpoints=elsewhere / "checkpoints"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(str(paths.checkpoints))) as caught:
            locked_run(other, "auto").__enter__()
        assert str(elsewhere / "checkpoints") in str(caught.value)
    with locked_run(paths, "auto"):
        pass


def test_moved_run_is_the_same_run(paths, tmp_path):
    write_run(paths.run_dir)
    paths.run_dir.rename(tmp_path / "moved")
    moved = make_paths(tmp_path / "moved")
    with locked_run(moved, "auto"):
        pass
    # Moved alone, the checkpoints tell whose they are.
    other = dataclasses.replace(moved, checkpoints=tmp_path / "disk")
    settings = {"settings": {"run_dir": str(moved.run_dir)}}
    Checkpoints(tmp_path / "disk", 3).save(1, [], settings)
    with locked_run(other, "auto"):
        pass


def test_never_moves_another_run_aside(paths, tmp_path):
    write_run(paths.run_dir)
    other = dataclasses.replace(paths, checkpoints=tmp_path / "elsewhere")
    with locked_run(other, "never") as moved:
        assert (moved[0] / "history.csv").exists()


def test_write_texts(tmp_path):
    for text in ("1", "2"):
        write_texts(tmp_path / "run", {"a.yaml": text})
    assert (tmp_path / "run" / "a.yaml").read_text() == "2"


def test_write_texts_fails(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(UserError, match=r"a.yaml"):
        write_texts(tmp_path, {"a.yaml": "1"})


def test_write_texts_removes_partial_files(tmp_path):
    for name in (".a.yaml.7.ab.partial", ".history.csv.7.ab.partial", ".explained.7.ab.partial"):
        (tmp_path / name).write_text("half")
    write_texts(tmp_path, {"a.yaml": "1"})
    assert names(tmp_path) == [".explained.7.ab.partial", "a.yaml"]


def test_never_moves_earlier_run(paths):
    run = paths.run_dir
    for number in (0, 1, 2):
        with locked_run(paths, "never") as moved:
            assert moved == ([run.with_name(f"run.{number}")] if number else [])
            fill(paths, str(number))
    assert names(run.parent) == ["run", "run.1", "run.2"]
    for number, folder in enumerate(("run.1", "run.2", "run")):
        folder = run.with_name(folder)
        assert names(folder) == ["a.yaml", "best", "checkpoints"]
        assert (folder / "a.yaml").read_text() == str(number)
        assert names(folder / "checkpoints") == ["step_0000000001"]


def test_never_moves_other_folders_too(paths, tmp_path):
    elsewhere = tmp_path / "models"
    paths = dataclasses.replace(paths, checkpoints=elsewhere, best=tmp_path / "best")
    fill(paths, "1")
    (elsewhere / "notes").write_text("mine")
    with locked_run(paths, "never") as moved:
        assert moved == [tmp_path / name for name in ("out/run.1", "models.1", "best.1")]
    assert names(elsewhere) == ["notes"]
    assert names(tmp_path / "models.1") == ["step_0000000001"]
    assert names(tmp_path / "best.1") == ["metrics.json"]
    # Once only, and an empty folder is no run.
    with locked_run(paths, "never") as moved:
        assert moved == []
    assert names(tmp_path) == ["best.1", "models", "models.1", "out"]


def test_never_moves_partly_replaced_best(paths, tmp_path):
    paths = dataclasses.replace(paths, best=tmp_path / "best")
    (tmp_path / "best.previous").mkdir()
    with locked_run(paths, "never") as moved:
        assert moved == [tmp_path / "best.1"]
    assert names(tmp_path) == ["best.1", "out"]


def test_auto_moves_nothing(paths):
    fill(paths, "1")
    with locked_run(paths, "auto") as moved:
        assert moved == []
    assert names(paths.run_dir.parent) == ["run"]
    assert names(paths.run_dir) == ["a.yaml", "best", "checkpoints"]


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("name", ["run_dir", "checkpoints", "best"])
def test_second_run_is_refused(paths, tmp_path, name, resume):
    fill(paths, "1")
    other = make_paths(tmp_path / "other")
    other = dataclasses.replace(other, **{name: getattr(paths, name)})
    option = {"checkpoints": "model_dir", "best": "best_model_dir"}.get(name, name)
    path = getattr(paths, name)
    message = rf"^{path} .* {os.getpid()} .*--{option}"
    with (
        locked_run(paths, "auto"),
        pytest.raises(UserError, match=message),
        locked_run(other, resume),
    ):
        pass
    assert names(paths.run_dir) == ["a.yaml", "best", "checkpoints"]


def test_checkpoints_in_run_dir(paths):
    paths = dataclasses.replace(paths, checkpoints=paths.run_dir)
    fill(paths, "1")
    with locked_run(paths, "never") as moved:
        assert moved == [paths.run_dir.with_name("run.1")]
    assert names(moved[0]) == ["a.yaml", "best", "step_0000000001"]


@pytest.mark.parametrize("name", ["run_dir", "checkpoints"])
def test_best_around_other_folders_is_refused(paths, tmp_path, name):
    path = tmp_path / "models"
    paths = dataclasses.replace(paths, best=path, **{name: path / "a"})
    option = {"checkpoints": "model_dir"}.get(name, name)
    message = f"best_model_dir {path} .*{option} {path / 'a'}"
    with pytest.raises(SettingsError, match=message), locked_run(paths, "auto"):
        pass


def free(monkeypatch, megabytes):
    usage = shutil.disk_usage("/")._replace(free=megabytes * 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_check_space(paths, monkeypatch):
    free(monkeypatch, 500)
    check_space(paths, 50_000_000, 20_000_000, 3)
    message = r"checkpoints has 500 MB .* 1,1\d\d MB: .* --run_dir, .* --keep_checkpoint_max"
    with pytest.raises(UserError, match=message):
        check_space(paths, 200_000_000, 100_000_000, 3)


def test_check_space_counts_replaced_files(paths, monkeypatch):
    fill(paths, "1")
    free(monkeypatch, 12)
    with pytest.raises(UserError, match="about 16 MB"):
        check_space(paths, 2_000_000, 1_000_000, 3)
    (paths.best / "model.keras").write_bytes(bytes(1_000_000))
    with pytest.raises(UserError, match="about 15 MB"):
        check_space(paths, 2_000_000, 1_000_000, 3)
    (paths.checkpoints / "step_0000000001" / "variables.npz").write_bytes(bytes(6_000_000))
    check_space(paths, 2_000_000, 1_000_000, 3)
    # However much there is, one more is written before it goes.
    free(monkeypatch, 8)
    with pytest.raises(UserError, match="about 8 MB"):
        check_space(paths, 2_000_000, 1_000_000, 0)


def test_check_space_of_each_disk(paths, monkeypatch):
    monkeypatch.setattr(run_directory, "_disk_of", lambda folder: folder.name)
    free(monkeypatch, 20)
    check_space(paths, 3_000_000, 3_000_000, 3)
    message = r"best has 20 MB .* 27 MB: .* --best_model_dir$"
    with pytest.raises(UserError, match=message):
        check_space(paths, 3_000_000, 10_000_000, 3)


def test_total_steps():
    assert make_plan().total_steps(7) == 21
    assert make_plan(max_train_steps=5).total_steps(7) == 5
    assert make_plan(max_train_steps=50).total_steps(7) == 21


def check(steps, steps_per_update=1, **plan):
    make_plan(train_epochs=1, **plan).check(steps, steps_per_update, ("loss", "accuracy"))


def test_check_unknown_metric():
    with pytest.raises(ChoiceError, match=r"'los'.*'loss'"):
        check(9, monitor=Monitor("los", "min"))


def test_check_accumulation(capsys):
    for steps_per_update, plan in ((3, {}), (9, {}), (2, {"max_minutes": 1.0})):
        check(9, steps_per_update, **plan)
    assert capsys.readouterr().err == ""
    check(9, 4)
    assert capsys.readouterr().err.startswith("warning: gradient_accumulation_steps 4")
    with pytest.raises(SettingsError, match="gradient_accumulation_steps 10"):
        check(9, 10)


def test_check_plateau_after_the_end(capsys):
    check(9, monitor=Monitor(patience=3, plateau_patience=2))
    assert capsys.readouterr().err == ""
    check(9, monitor=Monitor(patience=2, plateau_patience=2))
    assert capsys.readouterr().err.startswith("warning: plateau_patience 2")
