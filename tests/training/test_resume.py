"""What is read back from a checkpoint; that it is all, test_trainer.py tests."""

import json

import pytest

from library.errors import CheckpointError, StoppedError
from library.files import seal_folder
from library.saving.checkpoints import check_classes
from library.training.early_stopping import Monitor
from tests.helpers.small_run import Inputs, make_run, stopping_run


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


def change_state(folder, change):
    """Change what the only checkpoint of a run says of itself, as another version would."""
    (path,) = (folder / "checkpoints").glob("step_*")
    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    seal_folder(path)


def test_another_optimizer_of_the_same_shapes_is_refused(tmp_path):
    make_run(tmp_path, train_epochs=1, hyperparameters={"optimizer": "momentum"}).run()
    words = "was made with optimizer SGD, now it is Adagrad: .* another --run_dir"
    other = {"train_epochs": 2, "hyperparameters": {"optimizer": "adagrad"}}
    with pytest.raises(CheckpointError, match=words):
        make_run(tmp_path, **other).run()


def test_another_image_size_is_refused_before_anything_was_evaluated(tmp_path):
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 1).run()
    change_state(tmp_path, lambda state: state.update(image_shape=[8, 8, 1]))
    words = r"was made with image shape \[8, 8, 1\], now it is \[4, 4, 1\]"
    with pytest.raises(CheckpointError, match=words):
        make_run(tmp_path).run()


def test_a_checkpoint_of_another_version_goes_on(tmp_path):
    make_run(tmp_path, train_epochs=1, goal=Monitor(patience=9)).run()

    def change(state):
        del state["image_shape"], state["optimizer"], state["goal"]["min_delta"]
        state["goal"]["later"] = 1
        state["patience"]["without_improvement"] = 5

    change_state(tmp_path, change)
    run = make_run(tmp_path, train_epochs=1, goal=Monitor(patience=9))
    run.run()
    assert (run.step, run.patience.state["without_improvement"]) == (3, 5)


@pytest.mark.slow
def test_another_metric_is_waited_for_anew(tmp_path):
    goal = {"patience": 2, "min_delta": 0.9}
    make_run(tmp_path, train_epochs=2, goal=Monitor("accuracy", **goal)).run()
    # By the accuracy that was reached, each loss would be too large.
    run = make_run(tmp_path, train_epochs=3, goal=Monitor("loss", **goal))
    run.run()
    assert run.patience.state["reference"] == run.rows[-1]["validation_loss"]
    assert run.patience.state["without_improvement"] == 0
