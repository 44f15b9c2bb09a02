"""The profile of some steps."""

import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.training import profiler
from library.training.profiler import Profiler, read_profile_steps

multiply = tf.function(lambda x: x @ x)


def test_read_profile_steps():
    assert read_profile_steps(()) is None
    assert read_profile_steps(("10", "20")) == (10, 20)
    assert read_profile_steps(("3",)) == (3, 3)


@pytest.mark.parametrize("words", [("20", "10"), ("0", "3"), ("a", "b"), ("1", "2", "3")])
def test_read_profile_steps_refuses(words):
    with pytest.raises(SettingsError, match="profile_steps"):
        read_profile_steps(words)


def take_steps(profiler, start, end):
    recording = []
    for step in range(start, end):
        profiler.after_step(step)
        multiply(tf.ones((4, 4)))
        recording += [step + 1] if profiler._is_running else []
    profiler.after_step(end)
    profiler.close(end)
    return recording


def test_profile_is_written_where_the_plugin_looks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profiler, "PLUGINS", ("no_such_package",))
    assert take_steps(Profiler((2, 3), tmp_path), 0, 5) == [2, 3]
    (recorded,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert b"MatMul" in recorded.read_bytes()
    (line,) = capsys.readouterr().err.splitlines()
    assert f" 3: {tmp_path}" in line
    assert "tensorboard-plugin-profile" in line
    monkeypatch.setattr(profiler, "PLUGINS", ("tensorboard",))
    assert "make board" in profiler._viewing_hint()


def test_training_that_ends_before_the_last_step(tmp_path, capsys):
    assert take_steps(Profiler((2, 9), tmp_path), 0, 3) == [2, 3]
    assert f" 3: {tmp_path}" in capsys.readouterr().err
    take_steps(Profiler((8, 9), tmp_path), 0, 3)
    assert capsys.readouterr().err.startswith("warning: No profile")


def test_training_that_resumes_after_the_first_step(tmp_path, capsys):
    assert take_steps(Profiler((2, 3), tmp_path), 3, 5) == []
    assert capsys.readouterr().err.startswith("warning: No profile")
    # Of some of the steps, the rest is recorded.
    assert take_steps(Profiler((2, 4), tmp_path), 3, 5) == [4]


def test_no_profile(tmp_path, capsys):
    assert take_steps(Profiler(None, tmp_path / "logs"), 0, 3) == []
    assert not (tmp_path / "logs").exists()
    assert capsys.readouterr().err == ""


def test_steps_to_change(tmp_path):
    profiler = Profiler((4, 6), tmp_path)
    assert [profiler.steps_to_change(step) for step in (0, 2, 3, 5, 6)] == [3, 1, 3, 1, None]
    assert Profiler(None, tmp_path).steps_to_change(0) is None


def test_profile_that_cant_be_written_is_one_warning(tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way")
    take_steps(Profiler((2, 3), tmp_path / "logs"), 0, 5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: No profile")
