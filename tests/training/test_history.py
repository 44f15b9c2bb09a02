import csv

import pytest
import tensorflow as tf

from library.training.run_logger import History, Progress


def scalars(folder):
    """{tag: [(step, value), …]} of all event files in a folder."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_rows_become_csv_and_scalars(tmp_path):
    history = History(tmp_path)
    history.add_training_step(5, {"loss": 2.0, "learning_rate": 0.5})
    history.add_evaluation({"epoch": 1, "step": 10}, {"loss": 1.0}, {"loss": 1.5})
    history.add_evaluation({"epoch": 2, "step": 20}, {"loss": 0.5}, {"loss": 1.25})
    history.close()
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"epoch": "1", "step": "10", "loss": "1.0", "validation_loss": "1.5"},
        {"epoch": "2", "step": "20", "loss": "0.5", "validation_loss": "1.25"},
    ]
    training, validation = scalars(tmp_path / "logs/train"), scalars(tmp_path / "logs/validation")
    assert training["step/loss"] == [(5, 2.0)]
    assert training["step/learning_rate"] == [(5, 0.5)]
    assert training["epoch/loss"] == [(10, 1.0), (20, 0.5)]
    assert validation["epoch/loss"] == [(10, 1.5), (20, 1.25)]


def test_a_history_that_cant_be_written_is_a_warning(tmp_path, capsys):
    (tmp_path / "history.csv").mkdir()
    history = History(tmp_path)
    history.add_evaluation({"step": 1}, {}, {})
    history.close()
    assert "warning: " in capsys.readouterr().err
    assert [row["step"] for row in history.rows] == [1]


def test_going_on_keeps_the_rows_so_far_and_no_later_ones(tmp_path):
    first = History(tmp_path)
    for step in (1, 2, 3):
        first.add_evaluation({"step": step}, {}, {})
    first.close()
    again = History(tmp_path, first.rows[:1])
    again.add_evaluation({"step": 2}, {}, {})
    again.close()
    assert (tmp_path / "history.csv").read_text() == "step\n1\n2\n"


def test_the_rate_leaves_out_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("library.training.run_logger.time.perf_counter", lambda: now[0])
    progress = Progress(100)
    progress.add(30)
    now[0] += 2
    progress.pause()
    now[0] += 1000
    assert progress.take_images_per_second() == pytest.approx(15)
    progress.go_on()
    assert progress.waiting is None  # Nobody said.
    progress.add(8, 3.0)
    now[0] += 4
    progress.pause()
    assert progress.take_images_per_second() == pytest.approx(2)
    assert progress.waiting == pytest.approx(0.5)
    progress.close()
