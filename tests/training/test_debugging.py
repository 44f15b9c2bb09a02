"""--dry_run and --debug."""

import json

import numpy as np
import pytest
import tensorflow as tf

import run
from library.errors import DivergedError, SettingsError, UserError
from library.inputs.examples import without_autotune
from library.training.debugging import OneBatch, check_overfit, dry_run, numeric_checks
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
    with numeric_checks(is_on=False):
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
    "fashion_mnist": ("--image_size=8", "--max_train_steps=2"),
    "cifar_resnet56": ("--image_size=8", "--max_train_steps=2", "--residual_layers=20"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_config_set_trains(colors, options, tmp_path, capsys, name):
    folders = (f"--data_dir={colors}", f"--run_dir={tmp_path / 'run'}")
    run.main([f"--config_set={name}", *folders, *SETS[name]])
    printed = capsys.readouterr()
    best = json.loads(printed.out)
    if name == "debug":
        assert best["step"] < 300
        assert "debug: one batch of 32 images was learned: accuracy 1.0000" in printed.err
    else:
        assert best["step"] == 2
