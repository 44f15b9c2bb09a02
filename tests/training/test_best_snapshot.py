import dataclasses
import math
import shutil

import numpy as np
import pytest

from library.errors import CheckpointError
from library.saving.snapshots import read_snapshot
from library.training.best_snapshot import BestSnapshot
from library.training.distribution import Devices
from library.training.early_stopping import Monitor
from library.training.plan import RunPaths
from tests.saving.test_snapshots import make_network

NETWORK = make_network()


@pytest.fixture
def best(tmp_path):
    return BestSnapshot(RunPaths.below(tmp_path, ("a", "b")), Monitor(), Devices())


def again(best, **paths):
    """The best of a later run in the same folder."""
    return BestSnapshot(dataclasses.replace(best._keeping, **paths), Monitor(), Devices())


def test_only_what_is_better_is_kept(best, tmp_path):
    assert best.keep(NETWORK, 1, 10, {"loss": 0.5})
    assert not best.keep(NETWORK, 2, 20, {"loss": 0.5})
    assert best.keep(NETWORK, 3, 30, {"loss": 0.25})
    assert read_snapshot(tmp_path / "best").metrics == best.metrics
    assert (best.metrics["epoch"], best.metrics["step"], best.metrics["value"]) == (3, 30, 0.25)


def test_what_is_only_remembered_is_saved_as_it_was(best, tmp_path):
    network = make_network()
    was = [each.numpy() for each in network.variables]
    assert best.keep(network, 1, 10, {"loss": 0.5}, network.variables)
    assert not (tmp_path / "best").exists()
    for each in network.variables:
        each.assign(each + 1)
    now = [each.numpy() for each in network.variables]
    assert not best.keep(network, 2, 20, {"loss": 0.5}, network.variables)
    best.write(network)
    snapshot = read_snapshot(tmp_path / "best")
    assert snapshot.metrics == best.metrics
    for expected, found in ((was, snapshot.network), (now, network)):
        for value, variable in zip(expected, found.variables, strict=True):
            assert np.array_equal(value, variable.numpy())
    # Only once.
    shutil.rmtree(tmp_path / "best")
    best.write(network)
    assert not (tmp_path / "best").exists()


def test_nan_is_never_the_best(best, tmp_path):
    assert not best.keep(NETWORK, 1, 10, {"loss": math.nan, "accuracy": 1.0})
    assert best.metrics is None
    assert not (tmp_path / "best").exists()


def test_a_failed_save_is_not_remembered(best, monkeypatch):
    best.keep(NETWORK, 1, 10, {"loss": 0.5})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("library.training.best_snapshot.snapshots.write_snapshot", full)
    with pytest.raises(OSError, match="No space left"):
        best.keep(NETWORK, 2, 20, {"loss": 0.25})
    assert best.metrics["value"] == 0.5


def test_the_stored_one_counts_as_it_is_measured_now(best):
    assert best.check_stored(NETWORK, None) is None
    best.keep(NETWORK, 3, 30, {"loss": 0.5})
    later = again(best)
    line = later.check_stored(NETWORK, lambda network: {"loss": 0.75})
    assert line.endswith("best: validation loss 0.7500 (epoch 3)")
    assert later.metrics == {**best.metrics, "value": 0.75, "validation": {"loss": 0.75}}


def test_one_that_is_gone_is_no_longer_the_best(best, tmp_path):
    best.keep(NETWORK, 3, 30, {"loss": 0.5})
    shutil.rmtree(tmp_path / "best")
    line = f"the best, of epoch 3, is no longer in {tmp_path / 'best'}"
    assert best.check_stored(NETWORK, None) == line
    assert best.metrics is None


def test_another_runs_is_refused(best):
    best.keep(NETWORK, 3, 30, {"loss": 0.5})
    with pytest.raises(CheckpointError, match="only there: 'b'; only in the data: 'c'"):
        again(best, classes=("a", "c")).check_stored(NETWORK, None)
    with pytest.raises(CheckpointError, match=r"shape \(4, 4, 1\), this run \(5, 5, 1\)"):
        again(best).check_stored(make_network(edge=5), None)
