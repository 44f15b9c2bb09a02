"""Two workers against the oracle of one: the same losses, the same end, and lost ones."""

import csv
import json
import shutil
import signal
import socket
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import run
from library.dataset.splits import read_splits
from library.distributed.cluster import Cluster
from library.distributed.devices import name_lost_workers
from library.errors import SettingsError, UserError, run_main
from library.inputs.decoding import ImageFormat
from library.inputs.examples import make_source
from library.inputs.worker_slice import WorkerSlice
from library.saving.checkpoints import Checkpoints
from project.commands.train import find_cluster, train_splits
from project.inputs import TrainingPipeline
from tests import rehearsal
from tests.conftest import COLORS, convert, write_colors
from tests.helpers.workers import (
    OPTIONS,
    Worker,
    free_ports,
    newest_checkpoint,
    options,
    start_two,
    wait_for_rows,
)


def test_lost_worker_is_named():
    cluster = Cluster(("127.0.0.1:2", "127.0.0.1:1"), 0)
    with (
        pytest.raises(UserError, match=r"^worker 1 \(127.0.0.1:1\)"),
        name_lost_workers(cluster),
    ):
        raise tf.errors.UnavailableError(None, None, "mine")


def test_worker_lost_while_the_network_is_built_is_named(monkeypatch):
    def fail(*_):
        raise tf.errors.UnavailableError(None, None, "mine")

    cluster = Cluster(("127.0.0.1:2", "127.0.0.1:1"), 0)
    devices = SimpleNamespace(explain_lost_workers=lambda: name_lost_workers(cluster))
    monkeypatch.setattr("project.assembly.start_devices", lambda *_: devices)
    monkeypatch.setattr("project.assembly.make_trainer", fail)
    monkeypatch.setattr("project.data_defaults.log_if_pretrained_is_better", lambda *_: None)
    with pytest.raises(UserError, match=r"worker 1 .*ended"):
        train_splits(SimpleNamespace(project=None), [None])


@pytest.mark.slow
def test_chief_that_ends_once_it_was_seen_is_named(colors, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as chief:
        addresses = [f"127.0.0.1:{port}" for port in (chief.getsockname()[1], *free_ports(1))]
        task = {"type": "worker", "index": 1}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        arguments = options(colors, tmp_path / "run")
        worker = Worker(arguments, {"TF_CONFIG": config}, "tests.helpers.impatient")
        chief.accept()[0].close()
    code, said = worker.finish(60)
    assert code == 1
    assert "error: worker 0 (127.0.0.1:" in said.splitlines()[-1]


@pytest.mark.parametrize(
    "environ",
    [
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker"}}'},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_deleted_leaf_is_named(monkeypatch, environ):
    monkeypatch.setitem(sys.modules, "library.distributed.cluster", None)
    assert find_cluster() is None
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"library/distributed.*unset"):
        find_cluster()


def losses_by_step(run_dir):
    """Every training step's loss, from TensorBoard's files."""
    losses = {}
    for path in (run_dir / "logs").glob("events*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "step/loss":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    return losses


def rows_of(run_dir):
    """The history, but for the clock's column."""
    rows = csv.DictReader((run_dir / "history.csv").read_text().splitlines())
    return [{k: float(v) for k, v in row.items() if k != "images_per_second"} for row in rows]


def error_line(said):
    """The one error of a process, which is its last line."""
    lines = [each for each in said.splitlines() if "rror" in each or "Traceback" in each]
    assert len(lines) == 1, said
    assert lines[0] == said.splitlines()[-1], said
    assert lines[0].startswith("run.py: error: "), said
    return lines[0]


@pytest.fixture(scope="module")
def two_workers(colors, tmp_path_factory):
    """An uninterrupted run of two workers: its folder."""
    run_dir = tmp_path_factory.mktemp("cluster") / "two"
    for worker in start_two(colors, run_dir):
        code, said = worker.finish()
        assert code == 0, said
    return run_dir


@pytest.mark.slow
def test_two_workers_match_one(colors, two_workers, tmp_path):
    run.main(options(colors, tmp_path / "one", report=False))
    one, two = losses_by_step(tmp_path / "one"), losses_by_step(two_workers)
    assert sorted(one) == sorted(two) == list(range(1, 57))
    steps = range(1, 51)
    np.testing.assert_allclose([two[s] for s in steps], [one[s] for s in steps], atol=1e-5)
    # They learned something on the way.
    assert one[50] < one[1] / 10
    rows = rows_of(tmp_path / "one")
    assert rows[0] == pytest.approx(rows_of(two_workers)[0], abs=1e-5)
    # Only the chief wrote, the report too.
    assert "correct on the validation split" in (two_workers / "report.html").read_text()
    assert len(list((two_workers / "logs").iterdir())) == 1


@pytest.mark.slow
def test_workers_with_own_shards_see_each_image_once(tmp_path, colors):
    """The order is repeatable, too: this process computes that of each worker."""
    write_colors(tmp_path / "images", 9)
    convert(tmp_path / "images", tmp_path / "whole", "train", "--num_shards=5")
    (manifest,) = read_splits(tmp_path / "whole", "train")
    for index in range(2):
        shutil.copytree(tmp_path / "whole", tmp_path / str(index))
        shutil.copytree(colors / "validation", tmp_path / str(index) / "validation")
        # A worker that reads another's shard finds that it is damaged.
        for shard in manifest.shards[1 - index :: 2]:
            (tmp_path / str(index) / "train" / shard.file).write_bytes(bytes(shard.bytes))
    epochs = {"train_epochs": 2, "shard_by_file": True, "num_parallel_calls": 1, "report": False}
    workers = start_two(
        tmp_path / "{worker}", tmp_path / "run", module="tests.helpers.by_file", **epochs
    )
    for worker in workers:
        code, said = worker.finish()
        assert code == 0, said
    whole = TrainingPipeline(
        make_source(manifest), ImageFormat(4, 3), OPTIONS["batch_size"], 10_000, seed=0
    )
    # As a run does, because the shuffle depends on it.
    tf.random.set_seed(0)
    by_epoch = [[], []]
    for part in WorkerSlice(count=2, by_file=True).siblings():
        own = replace(whole, worker_slice=part)
        expected = [[whole.source.filename(key) for key in own.keys(epoch)] for epoch in range(2)]
        expected = [[name.numpy().decode() for name in names] for names in expected]
        seen = (tmp_path / str(part.index) / "seen.txt").read_text().split()
        assert seen == expected[0] + expected[1]
        assert expected[0] != expected[1]
        for epoch in range(2):
            by_epoch[epoch] += expected[epoch]
    names = sorted(f"{color}/{number:03d}.png" for color in COLORS for number in range(9))
    assert [sorted(each) for each in by_epoch] == [names, names]


@pytest.mark.slow
def test_two_workers_one_of_which_fails(colors, two_workers, tmp_path):
    """One is stopped, then one is terminated: each time all end, and then resume."""
    run_dir = tmp_path / "run"
    # Silent, but not dead.
    chief, worker = start_two(colors, run_dir)
    wait_for_rows(run_dir, 1, (chief, worker))
    worker.send_signal(signal.SIGSTOP)
    code, said = chief.finish(60)
    worker.send_signal(signal.SIGKILL)
    assert code == 1
    assert "run.py: error: worker 1 (127.0.0.1:" in error_line(said)

    chief, worker = start_two(colors, run_dir)
    wait_for_rows(run_dir, 1, (chief, worker))
    worker.send_signal(signal.SIGTERM)
    (chief_code, chief_said), (code, said) = chief.finish(), worker.finish()
    assert (chief_code, code) == (143, 143), said
    # The same words, the step among them.
    assert chief_said.splitlines()[-1] == said.splitlines()[-1]
    assert said.splitlines()[-1].startswith("Terminated in epoch")
    assert len(rows_of(run_dir)) < 7

    for each in start_two(colors, run_dir, report=False):
        code, said = each.finish()
        assert code == 0, said
    assert rows_of(run_dir) == rows_of(two_workers)


@pytest.mark.slow
def test_one_worker_resumes_two_on_the_same_batches(colors, two_workers, tmp_path):
    shutil.copytree(two_workers / "checkpoints", tmp_path / "run" / "checkpoints")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    for newer in checkpoints.paths()[:2]:
        shutil.rmtree(newer)
    first = newest_checkpoint(tmp_path / "run") + 1
    run.main(options(colors, tmp_path / "run", report=False))
    one, two = losses_by_step(tmp_path / "run"), losses_by_step(two_workers)
    assert 2 < min(one) == first
    np.testing.assert_allclose([one[s] for s in one], [two[s] for s in one], atol=1e-5)


@pytest.mark.slow
def test_rehearsal_finds_a_killed_cluster_same_to_the_bit(colors, monkeypatch, capsys):
    """With what differs from worker to worker: dropout, and statistics of its own images."""
    # So that it is as before afterwards.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    more = {"report": False, "synchronized_batch_norm": False, "dropout_rate": 0.1}
    training = [each for each in options(colors, "", **more) if not each.startswith("--run_dir")]
    assert run_main(rehearsal.main, training, "cluster_test") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in said[1:]] == ["1.", "2.", "3.", "4."]
    assert "worker 0 (127.0.0.1:" in said[2]


def test_rehearsal_of_one_worker_is_refused():
    with pytest.raises(SettingsError, match="--workers 1"):
        rehearsal.main(["--workers=1"])
