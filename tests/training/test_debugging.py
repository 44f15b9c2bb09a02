import json

import numpy as np
import pytest
import tensorflow as tf

import run
from library.errors import DivergedError, SettingsError, UserError
from library.inputs.examples import without_autotune
from library.training.debugging import OneBatch, check_overfit, numeric_checks


class Shuffled:
    """Training inputs of nine numbers, otherwise ordered at each call."""

    source, batch_size, examples = "source", 4, 9

    def batches(self, epoch):
        return without_autotune(tf.data.Dataset.range(9)).shuffle(9).batch(4)


def test_one_batch_is_the_same_whenever_it_is_asked_for():
    inputs = OneBatch(Shuffled())
    assert (inputs.source, inputs.examples, inputs.batches_per_epoch) == ("source", 4, 1)
    first, again, validation = (
        [each.numpy().tolist() for each in batches]
        for batches in (inputs.batches(0), inputs.batches(7), inputs.batches())
    )
    assert first == again == validation
    assert [len(each) for each in first] == [4]
    assert not list(inputs.batches(3, start_batch=1))


def test_what_gives_no_number_is_named():
    @tf.function
    def logarithm(values):
        with tf.name_scope("network/block1"):
            return tf.math.log(values)

    values = tf.constant([-1.0])
    with numeric_checks(is_on=False):
        assert np.isnan(logarithm(values)).all()
    logarithm = tf.function(logarithm.python_function)
    with (
        pytest.raises(DivergedError, match=r"^debug: .*network/block1/Log gave NaN$") as caught,
        numeric_checks(),
    ):
        logarithm(values)
    assert caught.value.exit_code == 5
    with pytest.raises(DivergedError, match=r"debug: RealDiv gave \+Inf"), numeric_checks():
        tf.constant(1.0) / tf.constant(0.0)
    # Off again.
    assert np.isnan(tf.math.log(values)).all()


def test_other_errors_stay_what_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError, match="mine"), numeric_checks():
        raise tf.errors.InvalidArgumentError(None, None, "mine")


def test_whether_a_batch_was_learned():
    words = check_overfit({"accuracy": 1.0, "loss": 0.01}, 32)
    assert words == "debug: one batch of 32 images was learned: accuracy 1.0000, loss 0.0100"
    with pytest.raises(UserError, match=r"32 images was not learned \(accuracy 0.9000, loss 0.5"):
        check_overfit({"accuracy": 0.9, "loss": 0.5}, 32)


def test_what_xla_compiles_is_not_checked(options):
    with pytest.raises(SettingsError, match="debug checks the numbers of each operation, xla mer"):
        run.main([*options, "--debug", "--xla"])


SETS = {
    "debug": ("--image_size=8", "--learning_rate=0.01"),
    "fashion_mnist": ("--image_size=8", "--max_train_steps=2"),
    "cifar_resnet56": ("--image_size=8", "--max_train_steps=2", "--residual_layers=20"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_sets_of_the_files_train(colors, options, tmp_path, capsys, name):
    folders = (f"--data_dir={colors}", f"--run_dir={tmp_path / 'run'}")
    run.main([f"--config_set={name}", *folders, *SETS[name]])
    printed = capsys.readouterr()
    best = json.loads(printed.out)
    if name == "debug":
        assert best["step"] < 300
        assert "debug: one batch of 32 images was learned: accuracy 1.0000" in printed.err
    else:
        assert best["step"] == 2
