import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.files import locked
from library.inputs.examples import without_autotune
from library.models import feature_cache as room
from library.models.feature_cache import cache_features
from library.models.features import FrozenBase, split_at_base
from tests.models.test_features import LABELS, ORDER, PIXELS, Examples, batches, keep, make_network


@pytest.fixture
def network(tmp_path):
    return make_network(tmp_path)


@pytest.mark.slow
def test_they_are_made_once_for_each_base_and_key(network, tmp_path):
    base, _ = split_at_base(network)
    folder = tmp_path / "cache"
    assert "keeping the base's features of 10 images" in keep(base, folder)[1][0]
    assert keep(base, folder)[1] == []
    assert keep(base, folder, key="other data")[1]
    base.weights[0].assign(base.weights[0] + 1)
    assert keep(base, folder)[1]
    assert len(list(folder.iterdir())) == 3


def test_another_preprocessing_is_another_base(network, tmp_path):
    base, _ = split_at_base(network)
    pixels = keras.Input((6, 6, 3))
    other = keras.Model(pixels, network.get_layer("base")(keras.layers.Rescaling(1 / 127)(pixels)))
    keep(base, tmp_path)
    assert keep(other, tmp_path)[1]


def test_damaged_features_are_made_again(network, tmp_path):
    base, _ = split_at_base(network)
    keep(base, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    content = bytearray((folder / "features.npy").read_bytes())
    content[-1] ^= 1
    (folder / "features.npy").write_bytes(content)
    kept, told = keep(base, tmp_path / "cache")
    assert "are damaged (features.npy is not what was written): making them again" in told[0]
    assert np.allclose(kept.batch([0])[0], base(PIXELS[:1]), atol=1e-5)


def test_a_run_that_is_interrupted_while_keeping_leaves_nothing(network, tmp_path):
    base, _ = split_at_base(network)

    def given():
        yield from batches().take(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(base, tmp_path, given=given())
    assert list(tmp_path.iterdir()) == [tmp_path / "module"]


def test_what_a_killed_run_left_is_removed(network, tmp_path):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    # Of a killed run here; in a container of the same number; of a live run on a disk without
    # locks; and of one on another machine, whose processes have other numbers.
    processes = (dead.pid, os.getpid(), os.getppid(), dead.pid)
    names = [f".features-{n}.{process}.0.partial" for n, process in enumerate(processes)]
    for name in names:
        (tmp_path / name).mkdir()
    with locked(tmp_path / ".features-3.lock", "", ""):
        keep(split_at_base(network)[0], tmp_path)
    assert sorted(each.name for each in tmp_path.glob(".*")) == names[2:]


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    network, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=150)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage)
    text = (
        r"features can't be kept in .*/features-\w+: they take 0.0 MB, and 0.0 MB are free: make "
        "room, choose another --cache_dir, or --cache_features never$"
    )
    with pytest.raises(UserError, match=text):
        keep(split_at_base(network)[0], tmp_path, given=iter(()))
    assert list(tmp_path.iterdir()) == [tmp_path / "module"]


def test_a_disk_that_is_full_on_the_way_is_an_error_and_no_signal(network, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(UserError, match=r"features can't be kept in .*: File too large: make"):
            keep(split_at_base(network)[0], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [tmp_path / "module"]


def test_of_two_runs_that_want_the_same_features_one_makes_them(network, tmp_path, capsys):
    base, _ = split_at_base(network)
    in_use = f"in use by process {os.getpid()} on "

    def slowly():
        while in_use not in capsys.readouterr().err:
            time.sleep(0.01)
        yield from batches()

    with ThreadPoolExecutor(2) as runs:
        making = runs.submit(keep, base, tmp_path, given=slowly())
        while not list(tmp_path.glob(".*.partial")):
            time.sleep(0.01)
        waiting = runs.submit(keep, base, tmp_path, given=iter(()))
        (first, _), (second, _) = making.result(), waiting.result()
    assert np.array_equal(first.batch(range(10))[0], second.batch(range(10))[0])
    assert not list(tmp_path.glob(".*"))


def test_a_bar_tells_how_far_it_is(network, tmp_path, capsys, monkeypatch):
    base, _ = split_at_base(network)
    keep(base, tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    keep(base, tmp_path, key="other data")
    assert "features: 100%" in capsys.readouterr().err


def test_labels_of_several_classes_are_kept_too(network, tmp_path):
    examples = Examples()
    examples.label_spec = tf.TensorSpec([2], tf.float32)
    multi_label = np.array([[1, 0], [1, 1]], np.float32)[LABELS]
    given = without_autotune(
        tf.data.Dataset.from_tensor_slices((PIXELS[ORDER], multi_label[ORDER]))
    ).batch(4)
    base, numbers = FrozenBase(split_at_base(network)[0]), examples.indices()
    kept = cache_features(base, given, numbers, examples, tmp_path / "kept", "", print)
    assert np.array_equal(kept.batch(np.arange(10))[1], multi_label)
