"""What a run shows, as it arrives in the files that TensorBoard reads."""

import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.figures.contact_sheet import draw_batch
from library.training.plan import Plan, RunPaths
from library.training.run_logger import RunLogger
from tests.helpers.small_run import make_run
from tests.training.test_tensorboard import events

METRICS = {"loss": 0.5, "accuracy": 0.75}


@pytest.fixture
def lines():
    return []


@pytest.fixture
def run_logger(tmp_path, lines):
    paths, plan = RunPaths.below(tmp_path, ("a", "b")), Plan(3, save_summary_steps=10)
    batch = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64)
    run_logger = RunLogger(paths, plan, [], (300, 0), lambda: [batch], lines.append)
    yield run_logger
    run_logger.close()


def test_an_evaluation_becomes_a_row_and_a_line(run_logger, lines, tmp_path):
    rows = run_logger.add_evaluation(2, 20, 0.1, METRICS, {"loss": 0.25, "accuracy": 1.0})
    run_logger.tell_evaluation(rows[-1], is_best=True)
    (line,) = lines
    assert line.startswith(
        "epoch 2/3  loss 0.5000  accuracy 0.7500  validation loss 0.2500  accuracy 1.0000  "
    )
    assert line.endswith(" images/s  best")
    assert (tmp_path / "history.csv").read_text().startswith("epoch,step,learning_rate,")


def test_steps_are_summed_up_now_and_then(run_logger, tmp_path):
    for step in range(4, 25, 4):
        run_logger.add_steps(step, 4, np.array([1.0, step]), lambda: 0.1)
    run_logger.close()
    shown = events(tmp_path / "logs/train")
    for tag in ("loss", "learning_rate", "images_per_second"):
        assert [step for step, _ in shown[f"step/{tag}"]] == [12, 20], tag
    # The inputs stay as they are: once is enough.
    assert [step for step, _ in shown["images/inputs"]] == [12]


def test_an_empty_batch_is_not_shown(run_logger, tmp_path):
    run_logger._next_batches = lambda: [(np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int64))]
    run_logger.add_steps(10, 1, np.array([1.0]), lambda: 0.1)
    run_logger.close()
    assert "images/inputs" not in events(tmp_path / "logs/train")


def test_kernels_are_shown_where_there_are_any(run_logger, tmp_path):
    pixels = keras.Input((4, 4, 1))
    for x in (pixels, keras.layers.Conv2D(5, 3)(pixels)):
        scores = keras.layers.Dense(2)(keras.layers.Flatten()(x))
        run_logger.show_network(7, keras.Model(pixels, scores))
    run_logger.close()
    ((step, grid),) = events(tmp_path / "logs/train")["images/kernels of the first layer"]
    assert step == 7
    # Three by two of them, each of three by three pixels of eight by eight, and lines between.
    assert tf.make_ndarray(grid.tensor)[:2].tolist() == [b"74", b"49"]


def test_the_bar_shows_the_best_and_when_the_training_will_end(monkeypatch, run_logger):
    bar = run_logger._progress._bar
    shown = []
    monkeypatch.setattr(bar, "set_postfix_str", shown.append)
    run_logger.start_epoch(1, None)
    run_logger.start_epoch(2, {"value": 0.25, "epoch": 2})
    run_logger.add_images(10, 0.0, 250)
    assert shown == ["best 0.2500 (epoch 2)"]
    assert bar.total == 250


@pytest.mark.slow
def test_a_run_shows_its_inputs_kernels_weights_and_settings(tmp_path):
    run = make_run(tmp_path, weight_histograms=True, save_summary_steps=2)
    run.run()
    shown = events(tmp_path / "logs/train")
    ((step, sheet),) = shown["images/inputs"]
    assert step == 2
    # What comes next in its order: the third batch of the first epoch.
    *_, (images, labels) = run.training.batches(0, 2)
    expected = draw_batch(images.numpy().astype(np.uint8), labels.numpy(), run.paths.classes)
    (content,) = tf.make_ndarray(sheet.tensor)[2:]
    assert np.array_equal(tf.io.decode_png(content), np.asarray(expected))
    assert [step for step, _ in shown["step/learning_rate"]] == [2, 4, 6, 8]
    assert [step for step, _ in shown["epoch/images_per_second"]] == [3, 6, 9]
    for weights in run.network.trainable_variables:
        assert [step for step, _ in shown[f"weights/{weights.path}"]] == [3, 6, 9]
    assert len(events(tmp_path / "logs")["_hparams_/session_start_info"]) == 1


def test_a_log_folder_that_fills_up_is_one_warning(tmp_path, capfd):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = make_run(tmp_path, train_epochs=2, weight_histograms=True, save_summary_steps=1)
    # Only the logs are to meet the full disk.
    run.checkpoints.save = lambda *_: None
    run.keeper.keep = lambda *_: run.keeper.__dict__.update(metrics={"value": 1.0, "epoch": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [row["step"] for row in run.rows] == [3, 6]
    said = capfd.readouterr().err
    assert said.count("warning: no more TensorBoard summaries") == 1
