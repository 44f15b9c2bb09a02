"""What is read back from a checkpoint at the start. That it is all: tests/test_loop.py."""

import pytest

from library.errors import CheckpointError
from library.training.checkpoints import check_classes
from tests.small_run import make_run


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
