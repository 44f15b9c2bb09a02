import dataclasses
import os
import shutil

import pytest

from library.errors import SettingsError, UserError
from library.saving.checkpoints import Checkpoints
from library.training import run_directory
from library.training.plan import RunPaths
from library.training.run_directory import check_space, locked_run, write_texts


@pytest.fixture
def paths(tmp_path):
    return RunPaths.below(tmp_path / "out" / "run", ("a", "b"))


def fill(paths, text):
    """What a run leaves: a file, a checkpoint, a best."""
    write_texts(paths.run_dir, {"a.yaml": text})
    Checkpoints(paths.checkpoints, 3).save(1, [], {"text": text})
    paths.best.mkdir(parents=True)
    (paths.best / "metrics.json").write_text(text)


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_the_texts_are_written(tmp_path):
    for text in ("1", "2"):
        write_texts(tmp_path / "run", {"a.yaml": text})
    assert (tmp_path / "run" / "a.yaml").read_text() == "2"


def test_a_text_that_cant_be_written_is_told(tmp_path):
    (tmp_path / "a.yaml").mkdir()
    with pytest.raises(UserError, match=r"a.yaml could not be saved \(Is a directory\)"):
        write_texts(tmp_path, {"a.yaml": "1"})


def test_what_kills_left_of_them_is_removed_and_nothing_else(tmp_path):
    for name in (".a.yaml.7.ab.partial", ".history.csv.7.ab.partial", ".explained.7.ab.partial"):
        (tmp_path / name).write_text("half")
    write_texts(tmp_path, {"a.yaml": "1"})
    assert names(tmp_path) == [".explained.7.ab.partial", "a.yaml"]


def test_never_moves_the_earlier_run_aside_whole(paths):
    run = paths.run_dir
    for number in (0, 1, 2):
        with locked_run(paths, "never") as aside:
            assert aside == ([run.with_name(f"run.{number}")] if number else [])
            fill(paths, str(number))
    assert names(run.parent) == ["run", "run.1", "run.2"]
    for number, folder in enumerate(("run.1", "run.2", "run")):
        folder = run.with_name(folder)
        assert names(folder) == ["a.yaml", "best", "checkpoints"]
        assert (folder / "a.yaml").read_text() == str(number)
        assert names(folder / "checkpoints") == ["step_0000000001"]


def test_never_moves_what_lies_elsewhere_aside_too(paths, tmp_path):
    elsewhere = tmp_path / "models"
    paths = dataclasses.replace(paths, checkpoints=elsewhere, best=tmp_path / "best")
    fill(paths, "1")
    (elsewhere / "notes").write_text("mine")
    with locked_run(paths, "never") as aside:
        assert aside == [tmp_path / name for name in ("out/run.1", "models.1", "best.1")]
    assert names(elsewhere) == ["notes"]
    assert names(tmp_path / "models.1") == ["step_0000000001"]
    assert names(tmp_path / "best.1") == ["metrics.json"]
    # Once only, and an empty folder is no run.
    with locked_run(paths, "never") as aside:
        assert aside == []
    assert names(tmp_path) == ["best.1", "models", "models.1", "out"]


def test_never_moves_a_best_whose_replacement_was_cut_short(paths, tmp_path):
    paths = dataclasses.replace(paths, best=tmp_path / "best")
    (tmp_path / "best.previous").mkdir()
    with locked_run(paths, "never") as aside:
        assert aside == [tmp_path / "best.1"]
    assert names(tmp_path) == ["best.1", "out"]


def test_auto_moves_nothing(paths):
    fill(paths, "1")
    with locked_run(paths, "auto") as aside:
        assert aside == []
    assert names(paths.run_dir.parent) == ["run"]
    assert names(paths.run_dir) == ["a.yaml", "best", "checkpoints"]


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("name", ["run_dir", "checkpoints", "best"])
def test_a_second_run_in_any_of_the_folders_is_refused(paths, tmp_path, name, resume):
    fill(paths, "1")
    other = RunPaths.below(tmp_path / "other", ("a", "b"))
    other = dataclasses.replace(other, **{name: getattr(paths, name)})
    option = {"checkpoints": "model_dir", "best": "best_model_dir"}.get(name, name)
    path = getattr(paths, name)
    message = rf"^{path} is in use by process {os.getpid()} on .*, or choose another --{option}$"
    with (
        locked_run(paths, "auto"),
        pytest.raises(UserError, match=message),
        locked_run(other, resume),
    ):
        pass
    assert names(paths.run_dir) == ["a.yaml", "best", "checkpoints"]


def test_checkpoints_may_lie_in_the_runs_folder_itself(paths):
    paths = dataclasses.replace(paths, checkpoints=paths.run_dir)
    fill(paths, "1")
    with locked_run(paths, "never") as aside:
        assert aside == [paths.run_dir.with_name("run.1")]
    assert names(aside[0]) == ["a.yaml", "best", "step_0000000001"]


@pytest.mark.parametrize("name", ["run_dir", "checkpoints"])
def test_a_best_that_would_replace_more_than_itself_is_refused(paths, tmp_path, name):
    path = tmp_path / "models"
    paths = dataclasses.replace(paths, best=path, **{name: path / "a"})
    option = {"checkpoints": "model_dir"}.get(name, name)
    message = f"best_model_dir {path} is replaced whole .*, and {option} {path / 'a'} is in it"
    with pytest.raises(SettingsError, match=message), locked_run(paths, "auto"):
        pass


def free(monkeypatch, megabytes):
    usage = shutil.disk_usage("/")._replace(free=megabytes * 1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_too_small_a_disk_is_told_before_training(paths, monkeypatch):
    free(monkeypatch, 500)
    check_space(paths, 50_000_000, 20_000_000, 3)
    message = (
        r"checkpoints has 500 MB left, and this run needs about 1,1\d\d MB: make room, choose "
        "another --run_dir, or lower --keep_checkpoint_max"
    )
    with pytest.raises(UserError, match=message):
        check_space(paths, 200_000_000, 100_000_000, 3)


def test_what_the_run_holds_already_needs_no_room_again(paths, monkeypatch):
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


def test_each_disk_is_looked_at(paths, monkeypatch):
    monkeypatch.setattr(run_directory, "_disk_of", lambda folder: folder.name)
    free(monkeypatch, 20)
    check_space(paths, 3_000_000, 3_000_000, 3)
    message = r"best has 20 MB left.* about 27 MB: make room, choose another --best_model_dir$"
    with pytest.raises(UserError, match=message):
        check_space(paths, 3_000_000, 10_000_000, 3)
