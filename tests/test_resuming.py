"""What is read back from a checkpoint at the start. That it is all: tests/test_loop.py."""

import pytest

from library.errors import CheckpointError, StoppedError
from library.training.checkpoints import check_classes
from tests.small_run import Inputs, make_run, stopping_run


def test_more_epochs_go_on(tmp_path):
    make_run(tmp_path, train_epochs=1).run()
    run = make_run(tmp_path, train_epochs=2)
    run.run()
    assert [row["step"] for row in run.rows] == [3, 6]


def test_other_classes_are_refused_naming_them(tmp_path):
    make_run(tmp_path, train_epochs=1).run()
    with pytest.raises(CheckpointError, match=r"only there: 'b'; only in the data: 'c'"):
        make_run(tmp_path, classes=("a", "c")).run()
    with pytest.raises(CheckpointError, match="in another order"):
        check_classes("x", ("a", "b"), ("b", "a"))


def test_resume_must_wants_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        make_run(tmp_path, resume="must").run()


def test_another_number_of_steps_an_epoch_is_refused(tmp_path):
    """Stopped at batch 2 of 3, it would wait forever for the end of an epoch of one batch."""
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 2).run()
    words = "was made with 3 steps an epoch, now it is 1: .* another --run_dir"
    with pytest.raises(CheckpointError, match=words):
        make_run(tmp_path, Inputs(batch_size=22, batches_per_epoch=1)).run()


@pytest.mark.parametrize(
    ("step", "seed", "is_told"), [(2, 1, True), (2, 0, False), (3, 1, False)], ids=str
)
def test_another_order_is_told_where_an_epoch_is_not_over(tmp_path, capsys, step, seed, is_told):
    inputs = Inputs()
    inputs.order = [0]
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, step, training=inputs).run()
    inputs.order = [seed]
    make_run(tmp_path, inputs, train_epochs=1).run()
    words = "changed since: the order of images, so in what is left of epoch 1 some may come a sec"
    assert (words in capsys.readouterr().err) == is_told
