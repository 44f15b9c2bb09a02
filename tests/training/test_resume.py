"""Which checkpoints a run resumes from; that all state is restored, test_trainer.py tests."""

import json
import re
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import CheckpointError, StoppedError, UnreachableError
from library.files import seal_folder
from library.saving.checkpoints import Checkpoints, read_state
from library.training.early_stopping import EarlyStopping, Monitor
from library.training.keras_fit import KerasFitTrainer
from library.training.train_state import TrainState
from tests.conftest import ROOT
from tests.helpers.killed import OPTIONS
from tests.helpers.small_run import (
    Inputs,
    Validation,
    assert_same,
    everything,
    make_run,
    stopping_run,
)
from tests.helpers.workers import Worker


def test_train_state_as_json():
    state = TrainState(
        step=5,
        epoch=1,
        batch=2,
        best={"value": 0.5},
        rows=[{"step": 3}],
        early_stopping=EarlyStopping(0.5, 1, 1, "reason"),
        elapsed_seconds=1.5,
    )
    assert TrainState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_more_epochs(tmp_path):
    make_run(tmp_path, train_epochs=1).fit()
    run = make_run(tmp_path, train_epochs=2)
    run.fit()
    assert [row["step"] for row in run.state.rows] == [3, 6]


class Store:
    """A source whose store does not answer any more after some batches."""

    is_streamed = True

    def __init__(self, batch):
        self.failure, self.left = None, batch

    def give(self, image):
        self.left -= 1
        if self.left < 0:
            self.failure = UnreachableError("s3://bucket can't be read")
            raise self.failure
        return image

    def through(self, batches):
        return batches.map(
            lambda images, labels: (
                tf.ensure_shape(tf.numpy_function(self.give, [images], tf.uint8), images.shape),
                labels,
            )
        )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    run = make_run(tmp_path_factory.mktemp("whole"))
    run.fit()
    return run


@pytest.mark.parametrize(
    ("split", "batch", "step", "options"),
    [
        ("training", 4, 4, {}),
        ("training", 4, 4, {"steps_per_execution": 3}),
        ("validation", 5, 6, {}),
    ],
)
def test_state_is_saved_when_inputs_fail(tmp_path, whole, split, batch, step, options):
    inputs = {"training": Inputs(), "validation": Validation()}
    source, batches = Store(batch), inputs[split].batches
    inputs[split].source = source
    inputs[split].batches = lambda *arguments: source.through(batches(*arguments))
    failing = make_run(tmp_path / "run", **inputs, **options)
    with pytest.raises(UnreachableError, match=r"bucket can't be read\. State saved; .* resume"):
        failing.fit()
    assert failing.state.step == step
    resumed = make_run(tmp_path / "run", **options)
    resumed.fit()
    assert_same(resumed, whole)


def test_fit_resumes_from_latest_checkpoint_when_inputs_fail(tmp_path):
    inputs, source = Inputs(), Store(4)
    inputs.source, batches = source, inputs.batches
    inputs.batches = lambda *arguments: source.through(batches(*arguments))
    with pytest.raises(UnreachableError, match="resume from the latest checkpoint"):
        make_run(tmp_path, inputs, trainer=KerasFitTrainer).fit()


def test_must_needs_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="must"):
        make_run(tmp_path, resume="must").fit()


@pytest.mark.slow
def test_other_classes_are_refused(tmp_path):
    make_run(tmp_path, train_epochs=1, paths={"texts": {"project.yaml": "first"}}).fit()
    texts = {"texts": {"project.yaml": "second"}}
    with pytest.raises(CheckpointError, match=r"'b'.*'c'"):
        make_run(tmp_path, classes=("a", "c"), paths=texts).fit()
    assert (tmp_path / "project.yaml").read_text() == "first"
    make_run(tmp_path, paths=texts).fit()
    assert (tmp_path / "project.yaml").read_text() == "second"


def test_other_number_of_steps_is_refused(tmp_path):
    """Stopped at batch 2 of 3, it would wait forever for the end of an epoch of one batch."""
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 2).fit()
    with pytest.raises(CheckpointError, match=r"3 steps per epoch, now it is 1: .* --run_dir"):
        make_run(tmp_path, Inputs(batch_size=22, batches_per_epoch=1)).fit()


@pytest.mark.parametrize(
    ("step", "seed", "is_logged"), [(2, 1, True), (2, 0, False), (3, 1, False)], ids=str
)
def test_other_order_is_logged_within_an_epoch(tmp_path, capsys, step, seed, is_logged):
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, step, training=Inputs(order=[0])).fit()
    make_run(tmp_path, Inputs(order=[seed]), train_epochs=1).fit()
    assert ("the order of images" in capsys.readouterr().err) == is_logged


def change_state(folder, change):
    """Change what the only checkpoint of a run says of itself, as another version would."""
    (path,) = (folder / "checkpoints").glob("step_*")
    state = json.loads((path / "state.json").read_text())
    change(state)
    (path / "state.json").write_text(json.dumps(state))
    seal_folder(path)


def with_settings(**settings):
    return {"paths": {"settings": settings, "hyperparameters": {"lr", "model", "width"}}}


def test_another_model_is_named(tmp_path):
    make_run(tmp_path, **with_settings(model="simple")).fit()
    with pytest.raises(CheckpointError, match=r"network simple, .*residual.*--run_dir") as caught:
        make_run(tmp_path, **with_settings(model="residual")).fit()
    assert "variables" not in str(caught.value)


def test_settings_that_change_the_variables_are_named(tmp_path):
    def wider():
        pixels = keras.Input((4, 4, 1))
        x = keras.layers.Dense(3)(keras.layers.Flatten()(pixels))
        return keras.Model(pixels, keras.layers.Dense(2)(x))

    make_run(tmp_path, **with_settings(width=2)).fit()
    with pytest.raises(CheckpointError, match=r"width 2, now 3.*--resume never"):
        make_run(tmp_path, network=wider, **with_settings(width=3)).fit()


def test_finished_run_with_changed_hyperparameters_is_no_success_in_silence(tmp_path, capsys):
    make_run(tmp_path, **with_settings(lr=0.1, port=1)).fit()
    capsys.readouterr()
    make_run(tmp_path, **with_settings(lr=0.1, port=2)).fit()
    assert "warning" not in capsys.readouterr().err
    make_run(tmp_path, **with_settings(lr=0.2, port=1)).fit()
    assert re.search("warning: .*lr.*--run_dir.*--resume never", capsys.readouterr().err)


def test_new_setting_at_its_default_is_no_change(tmp_path, capsys):
    make_run(tmp_path, **with_settings(lr=0.1)).fit()
    capsys.readouterr()
    newer = with_settings(lr=0.1, model="simple", width=9)
    newer["paths"]["defaults"] = {"width"}
    make_run(tmp_path, train_epochs=4, **newer).fit()
    log = capsys.readouterr().err
    assert "Changed since then: model" in log
    assert "width" not in log


def test_other_optimizer_of_the_same_shapes_is_refused(tmp_path):
    make_run(tmp_path, train_epochs=1, hyperparameters={"optimizer": "momentum"}).fit()
    other = {"train_epochs": 2, "hyperparameters": {"optimizer": "adagrad"}}
    with pytest.raises(CheckpointError, match=r"optimizer SGD, .*Adagrad: .* --run_dir"):
        make_run(tmp_path, **other).fit()


def test_other_image_size_is_refused_before_an_evaluation(tmp_path):
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 1).fit()
    change_state(tmp_path, lambda state: state.update(image_shape=[8, 8, 1]))
    with pytest.raises(CheckpointError, match=r"\[8, 8, 1\].*\[4, 4, 1\]"):
        make_run(tmp_path).fit()


def test_checkpoint_with_other_keys(tmp_path):
    make_run(tmp_path, train_epochs=1, monitor=Monitor(patience=9)).fit()

    def change(state):
        del state["image_shape"], state["optimizer"], state["goal"]["min_delta"]
        state["goal"]["later"] = state["patience"]["later"] = 1
        state["patience"]["without_improvement"] = 5

    change_state(tmp_path, change)
    run = make_run(tmp_path, train_epochs=1, monitor=Monitor(patience=9))
    run.fit()
    assert (run.state.step, run.state.early_stopping.without_improvement) == (3, 5)


def test_checkpoint_of_version_0_1(tmp_path):
    """tests/data/v0_1/run was stopped by version 0.1 after step 5."""
    options = {
        "ema_decay": 0.9,
        "hyperparameters": {"optimizer": "momentum"},
        "monitor": Monitor(patience=5, plateau_patience=4),
    }
    whole = make_run(tmp_path / "whole", **options)
    whole.fit()
    shutil.copytree(ROOT / "tests" / "data" / "v0_1" / "run", tmp_path / "run")
    run = make_run(tmp_path / "run", resume="must", **options)
    run.fit()
    (variables, position, _, rows), (others, other_position, *_, other_rows) = map(
        everything, (run, whole)
    )
    assert position == other_position
    assert [row["step"] for row in rows] == [row["step"] for row in other_rows]
    for mine, theirs in zip(variables, others, strict=True):
        # Another machine may round in another way.
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.slow
def test_other_metric_resets_early_stopping(tmp_path):
    monitor = {"patience": 2, "min_delta": 0.9}
    make_run(tmp_path, train_epochs=2, monitor=Monitor("accuracy", **monitor)).fit()
    # Compared with the accuracy that was reached, each loss would be too large.
    run = make_run(tmp_path, train_epochs=3, monitor=Monitor("loss", **monitor))
    run.fit()
    assert run.state.early_stopping.reference == run.state.rows[-1]["validation_loss"]
    assert run.state.early_stopping.without_improvement == 0


@pytest.mark.slow
def test_resume_after_kills_matches_uninterrupted_run(tmp_path):
    whole = make_run(tmp_path / "whole", **OPTIONS)
    whole.fit()
    folders = {engine: tmp_path / engine for engine in ("loop", "fit")}
    for change in (9, 23):
        workers = {
            engine: Worker([str(folder), engine, str(change)], module="tests.helpers.killed")
            for engine, folder in folders.items()
        }
        for engine, worker in workers.items():
            code, log = worker.finish()
            assert code == -signal.SIGKILL, (engine, change, log)
    for folder in folders.values():
        run = make_run(folder, **OPTIONS)
        # The oldest one may be half removed.
        newest = Checkpoints(folder / "checkpoints").paths()[0]
        assert 0 < read_state(newest)["step"] < whole.state.step, "it was killed on the way"
        run.fit()
        assert_same(run, whole)
        assert (folder / "history.csv").read_text().count("\n") == 4
