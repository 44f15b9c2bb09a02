"""--dry_run, --debug and --profile_steps."""

import json

import numpy as np
import pytest
import tensorflow as tf

import run
from library.errors import DivergedError, SettingsError, UserError
from library.inputs.examples import without_autotune
from library.training import profiler
from library.training.debugging import OneBatch, check_overfit, dry_run, numeric_checks
from library.training.profiler import Profiler, read_profile_steps
from tests.helpers.small_run import make_run


class Shuffled:
    """Training inputs of nine numbers, in another order at each call."""

    source, batch_size, examples = "source", 4, 9

    def batches(self, epoch):
        return without_autotune(tf.data.Dataset.range(9)).shuffle(9).batch(4)


def test_dry_run(tmp_path):
    run = make_run(tmp_path)
    assert dry_run(run.parts, run.inputs).endswith(
        "training images (8, 4, 4, 1) → scores (8, 2), "
        "validation images (6, 4, 4, 1) → scores (6, 2)"
    )


def test_one_batch_is_always_the_same():
    inputs = OneBatch(Shuffled())
    assert (inputs.source, inputs.examples, inputs.batches_per_epoch) == ("source", 4, 1)
    first, again, validation = (
        [each.numpy().tolist() for each in batches]
        for batches in (inputs.batches(0), inputs.batches(7), inputs.batches())
    )
    assert first == again == validation
    assert [len(each) for each in first] == [4]
    assert not list(inputs.batches(3, start_batch=1))


def test_numeric_checks_name_the_operation():
    @tf.function
    def logarithm(values):
        with tf.name_scope("network/block1"):
            return tf.math.log(values)

    values = tf.constant([-1.0])
    assert np.isnan(logarithm(values)).all()
    logarithm = tf.function(logarithm.python_function)
    with (
        pytest.raises(DivergedError, match=r"network/block1/Log .*NaN") as caught,
        numeric_checks(),
    ):
        logarithm(values)
    assert caught.value.exit_code == 5
    with pytest.raises(DivergedError, match=r"RealDiv .*\+Inf"), numeric_checks():
        tf.constant(1.0) / tf.constant(0.0)
    # Off again.
    assert np.isnan(tf.math.log(values)).all()


def test_numeric_checks_leave_other_errors():
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine"), numeric_checks():
        raise tf.errors.InvalidArgumentError(None, None, "mine")


def test_check_overfit():
    assert "accuracy 1.0000, loss 0.0100" in check_overfit({"accuracy": 1.0, "loss": 0.01}, 32)
    with pytest.raises(UserError, match=r"accuracy 0.9000, loss 0.5"):
        check_overfit({"accuracy": 0.9, "loss": 0.5}, 32)


def test_debug_and_xla_exclude_each_other(options):
    with pytest.raises(SettingsError, match="debug and xla"):
        run.main([*options, "--debug", "--xla"])


SETS = {
    "debug": ("--image_size=8", "--learning_rate=0.01"),
    "fashion_mnist": ("--image_size=8", "--max_train_steps=2", "--model=simple"),
    "cifar_resnet56": ("--image_size=8", "--max_train_steps=2", "--model=simple"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_config_set_trains(colors, options, tmp_path, capsys, name):
    folders = (f"--data_dir={colors}", f"--run_dir={tmp_path / 'run'}")
    run.main([f"--config_set={name}", "--no-report", *folders, *SETS[name]])
    printed = capsys.readouterr()
    best = json.loads(printed.out)
    if name == "debug":
        assert best["step"] < 300
        assert "debug: one batch of 32 images was learned: accuracy 1.0000" in printed.err
    else:
        assert best["step"] in (1, 2)


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
