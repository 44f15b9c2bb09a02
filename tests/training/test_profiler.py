import pytest
import tensorflow as tf

from library.errors import SettingsError
from library.training import profiler
from library.training.profiler import Profile, read_profile_steps

multiply = tf.function(lambda x: x @ x)


def test_a_first_and_a_last_step():
    assert read_profile_steps(()) is None
    assert read_profile_steps(("10", "20")) == (10, 20)
    assert read_profile_steps(("3",)) == (3, 3)


@pytest.mark.parametrize("words", [("20", "10"), ("0", "3"), ("a", "b"), ("1", "2", "3")])
def test_anything_else_is_refused(words):
    with pytest.raises(SettingsError, match=r"profile_steps: '.*' is not a first and a last step"):
        read_profile_steps(words)


def take_steps(profile, start, end):
    recording = []
    for step in range(start, end):
        profile.after(step)
        multiply(tf.ones((4, 4)))
        recording += [step + 1] if profile._is_running else []
    profile.after(end)
    profile.close(end)
    return recording


def test_these_steps_are_recorded_where_the_plugin_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "PLUGINS", ("no_such_package",))
    said = []
    assert take_steps(Profile((2, 3), tmp_path, said.append), 0, 5) == [2, 3]
    (recorded,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert b"MatMul" in recorded.read_bytes()
    (line,) = said
    assert line.startswith(f"profile of the steps up to 3: {tmp_path}")
    assert line.endswith("(to look at it in TensorBoard: pip install tensorboard-plugin-profile)")
    monkeypatch.setattr(profiler, "PLUGINS", ("tensorboard",))
    assert profiler._how_to_look() == ", shown by `make board`"


def test_a_training_that_ends_meanwhile_leaves_what_there_is(tmp_path):
    said = []
    assert take_steps(Profile((2, 9), tmp_path, said.append), 0, 3) == [2, 3]
    assert said[0].startswith("profile of the steps up to 3: ")
    take_steps(Profile((8, 9), tmp_path, said.append), 0, 3)
    assert said[1] == "warning: no profile: this training did not come to step 8"


def test_a_training_that_goes_on_behind_the_last_of_them_says_so(tmp_path):
    said = []
    assert take_steps(Profile((2, 3), tmp_path, said.append), 3, 5) == []
    assert said == ["warning: no profile: step 3 was past when this began"]
    # Of some of them, these are recorded.
    assert take_steps(Profile((2, 4), tmp_path, said.append), 3, 5) == [4]


def test_nothing_is_recorded_unasked(tmp_path):
    assert take_steps(Profile(None, tmp_path / "logs", pytest.fail), 0, 3) == []
    assert not (tmp_path / "logs").exists()


def test_calls_of_several_steps_end_where_recording_changes(tmp_path):
    profile = Profile((4, 6), tmp_path, pytest.fail)
    assert [profile.steps_to_edge(step) for step in (0, 2, 3, 5, 6)] == [3, 1, 3, 1, None]
    assert Profile(None, tmp_path, pytest.fail).steps_to_edge(0) is None


def test_a_folder_that_cant_be_written_to_is_one_warning(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    said = []
    take_steps(Profile((2, 3), tmp_path / "logs", said.append), 0, 5)
    (line,) = said
    assert line.startswith("warning: no profile (")
    assert line.endswith("); training goes on")
