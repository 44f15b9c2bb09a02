import dataclasses
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from library.errors import UserError
from library.inputs.decoding import ImageFormat
from library.inputs.examples import USUAL
from library.inputs.untuned import untuned
from library.transfer import features as room
from library.transfer.features import FrozenBase, keep_features, split_at_base
from project.inputs import EvaluationInputs, TrainingInputs
from project.networks.applications import application
from project.networks.hub import hub
from project.networks.simple import simple
from tests.test_modules import save_module

PIXELS = np.random.default_rng(0).uniform(0, 255, (10, 6, 6, 3)).astype(np.float32)
LABELS = np.arange(10) % 2
ORDER = np.random.default_rng(1).permutation(10)


class Examples:
    """Ten pictures, in an order of their own."""

    is_shuffled = False
    class_counts = (5, 5)
    count = 10
    label_spec = tf.TensorSpec([], tf.int64)

    def keys(self, random=None, reading=None):
        pytest.fail("these are images")

    def numbers(self, random=None, reading=None):
        return untuned(tf.data.Dataset.from_tensor_slices(ORDER.astype(np.int64)))


def batches():
    shuffled = untuned(tf.data.Dataset.from_tensor_slices((PIXELS[ORDER], LABELS[ORDER])))
    return shuffled.batch(4)


@pytest.fixture
def network(tmp_path):
    save_module(tmp_path / "module")
    return hub((6, 6, 3), 2, hub_handle=str(tmp_path / "module"))


def keep(base, folder, key="", tell=None, given=None):
    """Give the Features, and what was told meanwhile."""
    told, examples = [], Examples()
    given = batches() if given is None else given
    tell = tell or told.append
    base = FrozenBase(base)
    return keep_features(base, given, examples.numbers(), examples, folder, key, tell), told


def test_a_network_is_split_at_its_base(network):
    base, head = split_at_base(network)
    assert base.output_shape == (None, 5)
    assert np.array_equal(head(base(PIXELS)), network(PIXELS))
    assert [each.path for each in head.trainable_variables] == [
        each.path for each in network.trainable_variables
    ]


def test_an_application_is_split_too():
    network = application((32, 32, 1), 2, application="MobileNetV3Small", application_weights=None)
    network.get_layer("base").trainable = False
    base, head = split_at_base(network)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype(np.float32)
    assert np.array_equal(head(base(pixels)), network(pixels))


def test_without_a_frozen_base_there_is_nothing_to_keep(network):
    network.get_layer("base").trainable = True
    assert split_at_base(network) is None
    assert split_at_base(simple((8, 8, 3), 2)) is None


@pytest.mark.parametrize("memory", [0, room._MEMORY_BYTES])
def test_each_image_gets_its_own_features(network, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(room, "_MEMORY_BYTES", memory)
    base, _ = split_at_base(network)
    kept, _ = keep(base, tmp_path / "cache")
    features, labels = next(iter(untuned(tf.data.Dataset.range(10)).batch(10).map(kept.batch)))
    assert np.allclose(features, base(PIXELS), atol=1e-5)
    assert np.array_equal(labels, LABELS)
    assert list(kept.keys().as_numpy_iterator()) == list(ORDER)
    assert np.array_equal(kept.labels([3, 4]), [1, 0])


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
    (tmp_path / f".features-1.{dead.pid}.0.partial").mkdir()
    living = tmp_path / f".features-2.{os.getpid()}.0.partial"
    living.mkdir()
    keep(split_at_base(network)[0], tmp_path)
    assert list(tmp_path.glob(".*")) == [living]


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    network, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=150)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage)
    text = (
        r"features can't be kept in .*/features-\w+: they take 0.0 MB, and 0.0 MB are free: make "
        "room, choose another --cache_dir, or --keep_features never$"
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


def test_of_two_runs_that_want_the_same_features_one_makes_them(network, tmp_path):
    base, _ = split_at_base(network)
    told, waits = [], threading.Event()

    def tell(text):
        told.append(text)
        waits.set()

    def slowly():
        for each in batches():
            assert waits.wait(30)
            yield each

    with ThreadPoolExecutor(2) as runs:
        making = runs.submit(keep, base, tmp_path, given=slowly())
        while not list(tmp_path.glob(".*.partial")):
            time.sleep(0.01)
        waiting = runs.submit(keep, base, tmp_path, tell=tell, given=iter(()))
        (first, _), (second, _) = making.result(), waiting.result()
    (said,) = told
    assert f"are being made by process {os.getpid()} on " in said
    assert np.array_equal(first.batch(range(10))[0], second.batch(range(10))[0])
    assert not list(tmp_path.glob(".*"))


def test_a_bar_tells_how_far_it_is(network, tmp_path, capsys, monkeypatch):
    base, _ = split_at_base(network)
    keep(base, tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    keep(base, tmp_path, key="other data")
    assert "features: 100%" in capsys.readouterr().err


class Pictures(Examples):
    """The same ten as inputs see them, one class twice as large as the other."""

    labels_of_all = np.arange(10) % 3 // 2
    class_counts = (7, 3)

    def keys(self, random=None, reading=None):
        return untuned(
            tf.data.Dataset.from_tensor_slices(random.permutation(10) if random else ORDER)
        )

    numbers = keys

    def labels(self, keys):
        return tf.gather(tf.constant(self.labels_of_all), keys)

    def image(self, key, image_format, crop=None):
        return tf.gather(tf.constant(PIXELS), key), self.labels(key)


@pytest.mark.parametrize("is_oversampled", [False, True])
def test_batches_are_those_of_the_images(network, tmp_path, is_oversampled):
    base, _ = split_at_base(network)
    frozen, pictures, shape = FrozenBase(base), Pictures(), ImageFormat(6, 3)
    validation = EvaluationInputs(pictures, shape, 4)
    numbers = pictures.keys()
    kept = keep_features(frozen, validation.batches(), numbers, pictures, tmp_path, "", print)
    training = TrainingInputs(pictures, shape, 4, 5, seed=0, is_oversampled=is_oversampled)
    both = room.KeptTraining((dataclasses.replace(training, source=kept),))
    for epoch, start in ((0, 0), (1, 0), (1, 1)):
        check_same(base, both.batches(epoch, start), training.batches(epoch, start))
    in_order = room.KeptValidation(dataclasses.replace(validation, source=kept))
    assert in_order.batch_size == 4
    for _ in range(2):  # Every evaluation gives all of them.
        check_same(base, in_order.batches(), validation.batches())


def check_same(base, kept, wanted):
    kept, wanted = list(kept), list(wanted)
    assert len(kept) == len(wanted) > 1
    for (features, labels), (images, other_labels) in zip(kept, wanted, strict=True):
        assert np.allclose(features, base(images), atol=1e-5)
        assert np.array_equal(labels, other_labels)


def test_views_take_turns():
    class Features:
        def __init__(self, view):
            self.batch = lambda keys: (keys, tf.fill(tf.shape(keys), view))

    class Inputs:
        batch_size, reading = 2, USUAL

        def __init__(self, view):
            self.source = Features(view)

        def keys(self, epoch):
            return untuned(tf.data.Dataset.range(10 * epoch, 10 * epoch + 6))

    views = room.KeptTraining((Inputs(0), Inputs(1)))
    seen = [next(views.batches(epoch, 1).as_numpy_iterator()) for epoch in range(3)]
    assert [(list(keys), list(view)) for keys, view in seen] == [
        ([2, 3], [0, 0]),
        ([12, 13], [1, 1]),
        ([22, 23], [0, 0]),
    ]


def test_labels_of_several_classes_are_kept_too(network, tmp_path):
    examples = Examples()
    examples.label_spec = tf.TensorSpec([2], tf.float32)
    several = np.array([[1, 0], [1, 1]], np.float32)[LABELS]
    given = untuned(tf.data.Dataset.from_tensor_slices((PIXELS[ORDER], several[ORDER]))).batch(4)
    base, numbers = FrozenBase(split_at_base(network)[0]), examples.numbers()
    kept = keep_features(base, given, numbers, examples, tmp_path / "kept", "", print)
    assert np.array_equal(kept.batch(np.arange(10))[1], several)
