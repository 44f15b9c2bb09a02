"""Several replicas against the oracle of one: the same data, the same losses, the same end."""

import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from library.errors import SettingsError, UserError
from library.training.cluster import Cluster
from library.training.distribution import Devices, choose_devices, naming_lost
from tests.conftest import ROOT
from tests.workers import finish, options, start, start_two, wait_for_rows


def test_one_device_has_no_strategy_and_divides_nothing():
    devices = Devices()
    assert (devices.replicas, devices.workers, devices.is_chief) == (1, 1, True)
    batches = tf.data.Dataset.range(3)
    assert devices.divide(batches, 7) is batches
    assert devices.agree(signal.SIGTERM)[0] == signal.SIGTERM
    assert devices.chief_first(lambda: 3) == 3
    assert devices.describe(16) == tf.config.list_logical_devices()[0].name


def test_a_batch_that_can_not_be_divided_is_refused():
    devices = Devices()
    devices.replicas = 3
    with pytest.raises(SettingsError, match=r"16 can't be .* 3 replicas: 15 or 18 could"):
        devices.check_batch_size("batch_size", 16)
    with pytest.raises(SettingsError, match="among 3 replicas: 3 could"):
        devices.check_batch_size("batch_size", 2)


def test_more_gpus_than_there_are_is_an_error():
    with pytest.raises(SettingsError, match="num_gpus 1000: this machine shows"):
        choose_devices(1000)


def test_an_error_of_ones_own_stays_what_it_is():
    def fail(cluster):
        with naming_lost(cluster):
            raise tf.errors.UnavailableError(None, None, "mine")

    with pytest.raises(tf.errors.UnavailableError):
        fail(None)
    with pytest.raises(UserError, match=r"worker 1 \(127.0.0.1:1\) ended or fell silent"):
        fail(Cluster(("127.0.0.1:2", "127.0.0.1:1"), 0))


@pytest.mark.slow
def test_two_mirrored_devices_make_the_steps_of_one():
    """In a process of its own: logical devices are made before TensorFlow starts."""
    script = [sys.executable, "-W", "ignore", "-m", "tests.mirrored"]
    subprocess.run(script, check=True, cwd=ROOT, timeout=120)


def losses_by_step(run_dir):
    """Every training step's loss, as TensorBoard got it."""
    losses = {}
    for path in (run_dir / "logs" / "train").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "loss":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    return losses


def rows_of(run_dir):
    """The history, but for the clock's column."""
    rows = csv.DictReader((run_dir / "history.csv").read_text().splitlines())
    return [{k: float(v) for k, v in row.items() if k != "images_per_second"} for row in rows]


def error_line(errors):
    """The one error among what a process said, TensorFlow's own last words beside it."""
    (line,) = [each for each in errors.splitlines() if each.startswith("run.py: error: ")]
    return line


@pytest.fixture(scope="module")
def two_workers(colours, tmp_path_factory):
    """An uninterrupted run of two workers: its folder."""
    run_dir = tmp_path_factory.mktemp("cluster") / "two"
    workers = start_two(colours, run_dir)
    for code, errors in map(finish, workers):
        assert code == 0, errors
    return run_dir


@pytest.mark.slow
def test_two_workers_make_the_steps_of_one(colours, two_workers, tmp_path):
    code, errors = finish(start(options(colours, tmp_path / "one")))
    assert code == 0, errors
    one, two = losses_by_step(tmp_path / "one"), losses_by_step(two_workers)
    assert sorted(one) == sorted(two) == list(range(1, 97))
    steps = range(1, 51)
    np.testing.assert_allclose([two[s] for s in steps], [one[s] for s in steps], atol=1e-5)
    first, last = rows_of(tmp_path / "one")[0], rows_of(two_workers)[0]
    assert first == pytest.approx(last, abs=1e-5)
    assert list(two_workers.glob("logs/*/*.tfevents*")) != []
    # Only the chief wrote.
    assert len(list((two_workers / "logs" / "train").iterdir())) == 1


@pytest.mark.slow
def test_two_workers_whatever_happens_to_one_of_them(colours, two_workers, tmp_path):
    """One is stopped, one is killed, one is told to end: each time all end, and then go on."""
    run_dir = tmp_path / "run"
    # Silent, but not dead.
    chief, worker = start_two(colours, run_dir)
    wait_for_rows(run_dir, 1, (chief, worker))
    worker.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    code, errors = finish(chief, 60)
    worker.kill()
    worker.communicate()
    assert (code, time.monotonic() - began < 60) == (1, True)
    assert "run.py: error: worker 1 (127.0.0.1:" in error_line(errors), errors

    chief, worker = start_two(colours, run_dir)
    wait_for_rows(run_dir, 1, (chief, worker))
    chief.kill()
    chief.communicate()
    code, errors = finish(worker, 60)
    assert code == 1
    assert "run.py: error: worker 0 (127.0.0.1:" in error_line(errors), errors

    chief, worker = start_two(colours, run_dir)
    wait_for_rows(run_dir, 1, (chief, worker))
    worker.send_signal(signal.SIGTERM)
    (chief_code, chief_errors), (code, errors) = finish(chief), finish(worker)
    assert (chief_code, code) == (143, 143), errors
    # The same words, the step among them.
    assert error_line(chief_errors) == error_line(errors)
    assert "terminated in epoch" in errors
    assert len(rows_of(run_dir)) < 6

    for code, errors in map(finish, start_two(colours, run_dir)):
        assert code == 0, errors
    for mine, uninterrupted in zip(rows_of(run_dir), rows_of(two_workers), strict=True):
        assert mine == pytest.approx(uninterrupted, abs=1e-5)
