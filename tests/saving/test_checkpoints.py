import shutil

import numpy as np
import pytest
import tensorflow as tf

from library.errors import CheckpointError, UserError
from library.saving.checkpoints import (
    Checkpoints,
    check_multi_label,
    read_state,
    read_variables,
)
from tests.helpers.cut_short import watched


def variables(seed=0):
    random = np.random.default_rng(seed)
    return [
        tf.Variable(random.normal(size=(3, 2)).astype(np.float32), name="kernel"),
        tf.Variable(7 + seed, dtype=tf.int64, name="iterations"),
        tf.Variable([1.5, seed], dtype=tf.bfloat16, name="half"),
        tf.Variable([1, 2**32 - 1], dtype=tf.uint32, name="random"),
    ]


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    for step in (1, 2, 30):
        checkpoints.save(step, variables(step), {"step": step})
    return checkpoints


def test_latest_has_what_was_saved(checkpoints, capsys):
    path = checkpoints.find_latest()
    assert read_state(path) == {"step": 30}
    target = variables()
    read_variables(path, target)
    for read, saved in zip(target, variables(30), strict=True):
        assert read.dtype == saved.dtype
        assert np.array_equal(read, saved)
    assert capsys.readouterr().err == ""


def test_save_removes_older_ones(checkpoints):
    checkpoints.save(100, variables(), {"step": 100})
    assert [path.name for path in checkpoints.paths()] == [
        "step_0000000100",
        "step_0000000030",
        "step_0000000002",
    ]


def test_latest_of_none_is_none(tmp_path):
    assert Checkpoints(tmp_path / "none", 3).find_latest() is None


@pytest.mark.parametrize("name", ["state.json", "variables.npz", "hashes.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "missing"])
def test_damaged_one_is_named_and_the_one_before_used(checkpoints, capsys, name, damage):
    path = checkpoints.paths()[0] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes({"flip": content, "cut": content[:-3], "empty": b""}[damage])
    assert read_state(checkpoints.find_latest()) == {"step": 2}
    (said,) = capsys.readouterr().err.splitlines()
    assert "step_0000000030" in said
    assert name in said


def test_all_damaged_is_an_error(checkpoints, capsys):
    for path in checkpoints.paths():
        (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match="--resume"):
        checkpoints.find_latest()
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_leftovers_of_a_killed_save_are_removed(checkpoints):
    leftover = checkpoints.folder / ".step_0000000040.1.ab.partial"
    shutil.copytree(checkpoints.paths()[0], leftover)
    assert checkpoints.find_latest().name == "step_0000000030"
    assert not leftover.exists()


@pytest.mark.parametrize("step", [20, 30], ids=["new", "again"])
@pytest.mark.parametrize("keep", [1, 2])
def test_save_killed_at_any_point_leaves_the_old_or_the_new(tmp_path, capsys, keep, step):
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", keep)
    for old in (5, step - 10, 20):
        checkpoints.save(old, variables(old), {"step": old, "is_new": False})
    with watched(tmp_path / "run", tmp_path / "states") as states:
        checkpoints.save(step, variables(40), {"step": step, "is_new": True})
    news = []
    for state in states:
        killed = Checkpoints(state / "checkpoints", keep)
        path, target = killed.find_latest(), variables()
        news.append(read_state(path)["is_new"])
        assert read_state(path)["step"] == (step if news[-1] else 20)
        read_variables(path, target)
        assert np.array_equal(target[0], variables(40 if news[-1] else 20)[0])
        killed.save(50, variables(), {})
        assert sorted(killed.folder.iterdir(), reverse=True) == killed.paths()
        assert len(killed.paths()) == keep
    assert news == sorted(news)
    assert set(news) == {False, True}
    assert capsys.readouterr().err == ""


def test_interrupted_replacement_is_undone(checkpoints):
    newest = checkpoints.paths()[0]
    shutil.copytree(newest, f"{checkpoints.paths()[1]}.previous")
    newest.rename(f"{newest}.previous")
    assert [path.name[-2:] for path in checkpoints.paths()] == ["02", "01"]
    assert checkpoints.find_latest() == newest
    assert sorted(checkpoints.folder.iterdir(), reverse=True) == checkpoints.paths()


def test_failed_save_leaves_the_others(checkpoints, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"/step_0000000040 .*No space left"):
        checkpoints.save(40, variables(), {"step": 40})
    assert read_state(checkpoints.find_latest()) == {"step": 30}
    assert len(checkpoints.paths()) == 3


def test_other_variables_are_refused_and_assign_nothing(checkpoints):
    path = checkpoints.find_latest()
    with pytest.raises(CheckpointError, match=r"\b4 variables.* 3\b"):
        read_variables(path, variables()[:3])
    other = [*variables()[:3], tf.Variable([1, 2, 3], dtype=tf.uint32, name="random")]
    with pytest.raises(CheckpointError, match=r"shape \(2,\) for random"):
        read_variables(path, other)
    assert np.array_equal(other[0], variables()[0])


def test_check_multi_label():
    check_multi_label("run/best", True, True)
    with pytest.raises(CheckpointError, match="run/best"):
        check_multi_label("run/best", True, False)
