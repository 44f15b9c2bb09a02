"""What a run reports while it trains: the bar, log lines, history.csv, curves.svg, TensorBoard."""

import csv
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from library.errors import StoppedError
from library.figures.contact_sheet import draw_batch
from library.training.early_stopping import EarlyStopping
from library.training.listeners import Evaluation, Listener, Run
from library.training.plan import RunPaths
from library.training.progress import History, LogLines, ProgressBar, run_summary
from library.training.tensorboard import TensorBoard, write_test_metrics
from library.training.timetable import Throughput, Timetable
from library.training.train_state import TrainState
from tests.helpers.small_run import Inputs, make_plan, make_run, stopping_run


def events(folder):
    """{tag: [(step, summary value), …]} of all event files in a folder."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def scalars(folder):
    """{tag: [(step, number), …]} of all event files in a folder."""
    return {
        tag: [(step, float(tf.make_ndarray(value.tensor))) for step, value in values]
        for tag, values in events(folder).items()
        if not tag.startswith(("images/", "weights/", "_hparams_/"))
    }


@pytest.fixture
def network():
    keras.utils.set_random_seed(0)
    pixels = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(5, 3, name="look")(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(x)))


BATCH = (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64))


@pytest.fixture
def start(tmp_path, network):
    """A function that starts a listener, as a run of 3 epochs of 22 images would."""

    def start(listener, state=None, batch=BATCH, settings=None, **plan):
        paths = RunPaths(tmp_path, tmp_path, tmp_path, ("a", "b"), {}, settings or {})
        plan, state = make_plan(save_summary_steps=10, **plan), state or TrainState()
        timetable, throughput = Timetable(plan, Inputs(), None), Throughput()
        throughput.add(1, 0.0)
        clocks, functions = (
            (timetable, throughput),
            (lambda: [batch], lambda: {"learning_rate": 0.1}),
        )
        listener.on_start(Run(network, plan, paths, state, *clocks, *functions))
        return listener

    return start


def make_steps(listener, step, losses):
    """Report some steps, the last of which is `step`."""
    listener.run.state.step = step
    listener.on_steps(len(losses), np.array(losses))


def evaluation(epoch, step, loss=1.0, is_best=False):
    training, validation = {"loss": loss, "accuracy": 0.75}, {"loss": loss / 2, "accuracy": 1.0}
    row = {
        "epoch": epoch,
        "step": step,
        "learning_rate": 0.1,
        "images_per_second": 5.0,
        **training,
        **{f"validation_{name}": value for name, value in validation.items()},
    }
    return Evaluation(row, training, validation, is_best)


def test_throughput_without_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("library.training.timetable.time.perf_counter", lambda: now[0])
    throughput = Throughput()
    throughput.add(30)
    now[0] += 2
    with throughput.paused():
        now[0] += 1000
        assert throughput.images_per_second("a") == pytest.approx(15)
    assert throughput.input_wait_share("run") is None  # It was not measured.
    throughput.add(8, 3.0)
    now[0] += 4
    assert throughput.images_per_second("a") == pytest.approx(2)
    assert throughput.images_per_second("b") == pytest.approx(38 / 6)
    assert throughput.input_wait_share("run") == pytest.approx(0.5)


def test_run_summary(tmp_path):
    run = make_run(tmp_path)
    assert run_summary(run.parts, run.inputs, run.paths.classes, run.devices).endswith(
        "98 parameters; 2 classes, 22 training and 22 validation images; "
        "3 steps per epoch, batch size 8, on the CPU"
    )


def test_progress_bar(start, monkeypatch):
    state = TrainState(step=3, epoch=1)
    progress = start(ProgressBar(), state)
    bar, shown, updates = progress._bar, [], []
    assert (bar.total, bar.n) == (66, 22)
    monkeypatch.setattr(bar, "set_postfix_str", shown.append)
    monkeypatch.setattr(bar, "update", updates.append)
    progress.on_epoch_start(1)
    state.batch, progress.run.timetable.total_steps = 1, 6
    make_steps(progress, 4, [1.0])
    state.best = {"value": 0.25, "epoch": 2}
    progress.on_evaluation(evaluation(2, 20, loss=0.5))
    progress.on_finish(None)
    assert shown == ["best 0.2500 (epoch 2)"]
    assert updates == [8]
    assert bar.total == 44


def test_log_lines(start, capsys):
    lines = start(LogLines(), TrainState(early_stopping=EarlyStopping(stopped="bored")))
    lines.on_evaluation(evaluation(2, 20, loss=0.5, is_best=True))
    lines.on_finish(None)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == (
        "epoch 2/3  loss 0.5000  accuracy 0.7500  validation loss 0.2500  accuracy 1.0000  "
        "5 images/s  best"
    )
    assert second.endswith("bored")
    assert third.startswith("0.0 %")


def test_history_after_resume(start, tmp_path):
    """The rows before the resume stay; those of an undone future, in the file, do not."""
    before, after = evaluation(1, 10), evaluation(2, 15)
    (tmp_path / "history.csv").write_text("of an undone future")
    state = TrainState(rows=[before.row], best={"epoch": 2})
    history = start(History(), state)
    state.rows.append(after.row)
    history.on_evaluation(after)
    history.on_finish(None)
    with (tmp_path / "history.csv").open() as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == list(before.row)
    assert [(row["epoch"], row["step"], row["validation_loss"]) for row in found] == [
        ("1", "10", "0.5"),
        ("2", "15", "0.5"),
    ]
    assert "best: epoch 2" in (tmp_path / "curves.svg").read_text()


def test_history_that_cant_be_written_is_a_warning(start, tmp_path, capsys):
    for name in ("history.csv", "curves.svg"):
        (tmp_path / name).mkdir()
    after = evaluation(1, 10)
    history = start(History(), TrainState(rows=[after.row]))
    history.on_evaluation(after)
    history.on_finish(None)
    log = capsys.readouterr().err.splitlines()
    assert [line.startswith("warning: ") for line in log] == [True, True]
    assert "history.csv" in log[0]
    assert "curves.svg" in log[1]


def test_tensorboard_scalars(start, tmp_path):
    board = start(TensorBoard())
    for step in range(4, 25, 4):
        make_steps(board, step, [1.0, 1.0, 1.0, step])
    board.on_evaluation(evaluation(1, 24, loss=1.0))
    board.on_evaluation(evaluation(2, 48, loss=0.5))
    board.on_finish(None)
    write_test_metrics(tmp_path, {"loss": 0.75}, 48)
    found = scalars(tmp_path / "logs")
    assert found["step/loss"] == [(12, 12.0), (20, 20.0)]
    assert found["step/learning_rate"] == [(12, pytest.approx(0.1)), (20, pytest.approx(0.1))]
    assert [step for step, _ in found["step/images_per_second"]] == [12, 20]
    assert found["train/loss"] == [(24, 1.0), (48, 0.5)]
    assert found["train/images_per_second"] == [(24, 5.0), (48, 5.0)]
    assert found["validation/loss"] == [(24, 0.5), (48, 0.25)]
    assert found["test/loss"] == [(48, 0.75)]
    # One entry in TensorBoard's list of runs.
    assert not [each for each in (tmp_path / "logs").iterdir() if each.is_dir()]


def test_tensorboard_images(start, tmp_path, network):
    board = start(TensorBoard(), weight_histograms=True)
    make_steps(board, 10, [1.0])
    board.on_evaluation(evaluation(1, 20))
    board.on_finish(None)
    shown = events(tmp_path / "logs")
    # The inputs stay as they are, so once is enough.
    assert [step for step, _ in shown["images/inputs"]] == [10]
    ((step, grid),) = shown["images/kernels of the first layer"]
    assert step == 20
    # Three by two of them, each of three by three pixels of eight by eight, and lines between.
    assert tf.make_ndarray(grid.tensor)[:2].tolist() == [b"74", b"49"]
    assert "weights/look/kernel" in shown


@pytest.mark.parametrize(("count", "shows_inputs"), [(0, True), (2, False)])
def test_tensorboard_without_kernels_or_images(count, shows_inputs, start, tmp_path, monkeypatch):
    monkeypatch.setattr("library.training.tensorboard.first_kernels", lambda network: None)
    batch = np.zeros((count, 4, 4, 1), np.uint8), np.zeros(count, np.int64)
    board = start(TensorBoard(shows_inputs=shows_inputs), batch=batch)
    board.on_evaluation(evaluation(1, 10))
    board.on_finish(None)
    assert not [tag for tag in events(tmp_path / "logs") if tag.startswith("images/")]


def test_tensorboard_hyperparameters(start, tmp_path):
    settings = {"width": 8, "learning_rate": 0.1, "model": "simple", "none": None}
    board = start(TensorBoard(), settings=settings)
    board.on_evaluation(evaluation(1, 10))
    board.on_finish(None)
    shown = events(tmp_path / "logs")
    assert len(shown["_hparams_/session_start_info"]) == 1
    content = shown["_hparams_/experiment"][0][1].metadata.plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    assert [each.name for each in experiment.hparam_infos] == ["learning_rate", "model", "width"]
    found = {each.name.tag: each.display_name for each in experiment.metric_infos}
    assert found["validation/accuracy"] == "validation accuracy"
    assert found["test/accuracy"] == "test accuracy"


def test_tensorboard_that_cant_be_written_is_one_warning(start, tmp_path, capsys):
    (tmp_path / "logs").write_text("in the way")
    board = start(TensorBoard(), weight_histograms=True)
    make_steps(board, 10, [1.0])
    board.on_evaluation(evaluation(1, 20))
    board.on_finish(None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: No more TensorBoard summaries")


@pytest.mark.slow
def test_tensorboard_of_a_run(tmp_path):
    run = make_run(tmp_path, save_summary_steps=2)
    run.fit()
    shown = events(tmp_path / "logs")
    ((step, sheet),) = shown["images/inputs"]
    assert step == 2
    # The batch that comes next: the third of the first epoch.
    *_, (images, labels) = run.inputs.training.batches(0, 2)
    expected = draw_batch(images.numpy().astype(np.uint8), labels.numpy(), run.paths.classes)
    (content,) = tf.make_ndarray(sheet.tensor)[2:]
    assert np.array_equal(tf.io.decode_png(content), np.asarray(expected))
    assert [step for step, _ in shown["step/learning_rate"]] == [2, 4, 6, 8]
    assert [step for step, _ in shown["train/images_per_second"]] == [3, 6, 9]


def test_inputs_at_the_end_of_an_epoch(tmp_path):
    """The images that come next are another epoch's."""
    run = make_run(tmp_path, save_summary_steps=3, epochs_between_evals=2, train_epochs=2)
    run.fit()
    assert run.state.step == 6


def test_full_disk_is_one_warning(tmp_path, capfd):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = make_run(tmp_path, train_epochs=2, weight_histograms=True, save_summary_steps=1)
    # Only the logs are to meet the full disk.
    run.checkpoints.save = lambda *_: None
    run.best_snapshot.save_if_better = lambda state, _: state.__dict__.update(
        best={"value": 1.0, "epoch": 1}
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        run.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [row["step"] for row in run.state.rows] == [3, 6]
    assert capfd.readouterr().err.count("warning: No more TensorBoard summaries") == 1


class Recorder(Listener):
    """Notes the names of what is reported."""

    def __init__(self):
        self.events = []
        for name in ("on_start", "on_epoch_start", "on_steps", "on_evaluation"):
            setattr(self, name, lambda *_, name=name: self.events.append(name))

    def on_finish(self, error):
        self.events.append(type(error).__name__)


def test_order_of_events(tmp_path):
    recorder = Recorder()
    make_run(tmp_path, train_epochs=2, max_train_steps=4, listeners=[recorder]).fit()
    epochs = ["on_epoch_start", *["on_steps"] * 3, "on_evaluation", "on_epoch_start", "on_steps"]
    assert recorder.events == ["on_start", *epochs, "on_evaluation", "NoneType"]


def test_events_of_a_stopped_run(tmp_path):
    recorder = Recorder()
    with pytest.raises(StoppedError):
        stopping_run(tmp_path, 1, listeners=[recorder]).fit()
    assert recorder.events == ["on_start", "on_epoch_start", "on_steps", "StoppedError"]
