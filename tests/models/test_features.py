"""Cached features: how they are computed, cached, and fed to the head."""

import dataclasses
import itertools
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
from library.inputs.decoding import ImageFormat
from library.inputs.examples import (
    DEFAULT_OPTIONS,
    ExampleSource,
    PipelineOptions,
    SplitPart,
    without_autotune,
)
from library.models import features as room
from library.models import image_features
from library.models.features import (
    FeatureCache,
    FeatureSource,
    cache_split_features,
    split_at_base,
)
from library.models.image_features import ImageFeatures
from project.augmentations import choose_augmentations
from project.inputs import EvaluationPipeline, TrainingPipeline
from tests.helpers.hub_modules import save_module
from tests.helpers.small_networks import build

PIXELS = np.random.default_rng(0).uniform(0, 255, (10, 6, 6, 3)).astype(np.float32)
# One class is twice as large as the other.
LABELS = np.arange(10) % 3 // 2
ORDER = np.random.default_rng(1).permutation(10)


def dataset_of(*arrays):
    return without_autotune(tf.data.Dataset.from_tensor_slices(*arrays))


class Examples(ExampleSource):
    """Ten images, in an order of their own."""

    class_counts = (7, 3)
    mean_bytes = 100
    count = 10

    def keys(self, random=None):
        return dataset_of(random.permutation(10) if random else ORDER.astype(np.int64))

    indices = keys

    def labels(self, keys):
        return tf.gather(tf.constant(LABELS), keys)

    def load(self, key, image_format, crop=None):
        return tf.gather(tf.constant(PIXELS), key), self.labels(key)


def batches(labels=LABELS):
    return dataset_of((PIXELS[ORDER], labels[ORDER])).batch(4)


@pytest.fixture
def network(tmp_path):
    """A head on a frozen module of five features, which is saved in tmp_path."""
    save_module(tmp_path / "module")
    return build("hub", (6, 6, 3), 2, hub_handle=str(tmp_path / "module"))


def cache(base, folder, *, key=(), images=None, source=None):
    source = source or Examples()
    images = batches() if images is None else images
    features = FeatureCache(base, folder)
    cached = features.read(source, lambda: images, source.indices(), key)
    return FeatureSource(source, [[cached]], features.feature_shape)


@pytest.fixture
def base(network):
    return split_at_base(network)[0]


def test_split_at_base(network):
    base, head = split_at_base(network)
    assert base.output_shape == (None, 5)
    assert np.array_equal(head(base(PIXELS)), network(PIXELS))
    assert [each.path for each in head.trainable_variables] == [
        each.path for each in network.trainable_variables
    ]


def test_split_at_base_of_an_application():
    network = build(
        "application", (32, 32, 1), 2, application="MobileNetV3Small", application_weights=None
    )
    network.get_layer("base").trainable = False
    base, head = split_at_base(network)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype(np.float32)
    assert np.array_equal(head(base(pixels)), network(pixels))


def test_split_at_base_without_a_frozen_base_is_none(network):
    network.get_layer("base").trainable = True
    assert split_at_base(network) is None
    assert split_at_base(build("simple", (8, 8, 3), 2)) is None


@pytest.mark.parametrize("memory", [0, room._MEMORY_BYTES])
def test_each_image_gets_its_own_features(base, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(room, "_MEMORY_BYTES", memory)
    cached = cache(base, tmp_path / "cache")
    features, labels = cached.gather(0, np.arange(10))
    assert np.allclose(features, base(PIXELS), atol=1e-5)
    assert np.array_equal(labels, LABELS)
    assert list(cached.keys().as_numpy_iterator()) == list(ORDER)
    assert np.array_equal(cached.labels([2, 3]), [1, 0])


def check_same(base, cached, expected):
    """Check that batches of features are those of batches of images."""
    cached, expected = list(cached), list(expected)
    assert len(cached) == len(expected) > 1
    for (features, labels), (images, other_labels) in zip(cached, expected, strict=True):
        assert np.allclose(features, base(images), atol=1e-5)
        assert np.array_equal(labels, other_labels)


@pytest.mark.parametrize("is_oversampled", [False, True])
def test_batches_are_those_of_the_images(base, tmp_path, is_oversampled):
    source, shape = Examples(), ImageFormat(6, 3)
    validation = EvaluationPipeline(source, shape, 4)
    cached = cache(base, tmp_path, images=validation.batches())
    training = TrainingPipeline(source, shape, 4, 5, seed=0, is_oversampled=is_oversampled)
    views = room.CachedTrainingInputs(dataclasses.replace(training, source=cached), 1)
    for epoch, start in ((0, 0), (1, 0), (1, 1)):
        check_same(base, views.batches(epoch, start), training.batches(epoch, start))
    several = itertools.chain(*(training.batches(epoch, int(not epoch)) for epoch in range(3)))
    check_same(base, views.batches(0, 1, epochs=3), several)
    in_order = room.CachedEvaluationInputs(dataclasses.replace(validation, source=cached))
    assert in_order.batch_size == 4
    for _ in range(2):  # every evaluation
        check_same(base, in_order.batches(), validation.batches())


def test_views_take_turns():
    class Features:
        def gather(self, view, keys):
            return keys, tf.fill(tf.shape(keys), view)

    class Inputs:
        batch_size, options, source, examples = 2, DEFAULT_OPTIONS, Features(), 6
        batches_per_epoch = 3

        def keys(self, epoch):
            return without_autotune(tf.data.Dataset.range(10 * epoch, 10 * epoch + 6))

    seen = room.CachedTrainingInputs(Inputs(), 2).batches(0, 2, epochs=3).as_numpy_iterator()
    assert [(list(keys), list(view)) for keys, view in seen] == [
        ([4, 5], [0, 0]),
        *(([10 + at, 11 + at], [1, 1]) for at in (0, 2, 4)),
        *(([20 + at, 21 + at], [0, 0]) for at in (0, 2, 4)),
    ]


@pytest.mark.parametrize(("memory", "runs"), [(2**20, [8]), (0, [8, 8])])
def test_images_with_the_same_pixels_run_once(memory, runs, monkeypatch):
    monkeypatch.setattr(image_features, "_MEMORY_BYTES", memory)
    sizes = []

    def infer(pixels):
        sizes.append(len(pixels))
        return pixels.mean((1, 2))

    images = ImageFeatures(infer)
    pixels, labels = PIXELS[[0, 1, 2, 0, 1]], np.arange(5)
    for _ in range(2):
        found = list(images.compute([(pixels[:3], labels[:3]), (pixels[3:], labels[3:])]))
        assert np.array_equal([features for features, _ in found], pixels.mean((1, 2)))
        assert [label for _, label in found] == labels.tolist()
    assert sizes == runs


def made(capsys):
    """How often features were computed since the last call, as the log says."""
    return capsys.readouterr().err.count("10 images")


@pytest.mark.slow
def test_features_are_computed_once_for_each_base_and_key(base, tmp_path, capsys):
    folder = tmp_path / "cache"
    cache(base, folder)
    assert made(capsys) == 1
    cache(base, folder)
    assert made(capsys) == 0
    cache(base, folder, key=("other data",))
    assert made(capsys) == 1
    base.weights[0].assign(base.weights[0] + 1)
    cache(base, folder)
    assert made(capsys) == 1
    assert len(list(folder.iterdir())) == 3


def test_other_preprocessing_makes_another_base(network, base, tmp_path, capsys):
    pixels = keras.Input((6, 6, 3))
    other = keras.Model(pixels, network.get_layer("base")(keras.layers.Rescaling(1 / 127)(pixels)))
    cache(base, tmp_path)
    cache(other, tmp_path)
    assert made(capsys) == 2


@pytest.mark.parametrize("name", ["blobs", "index"])
def test_damaged_features_are_computed_again(base, tmp_path, capsys, name):
    cache(base, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    cached = cache(base, tmp_path / "cache")
    assert made(capsys) == 2
    assert np.allclose(cached.gather(0, [0])[0], base(PIXELS[:1]), atol=1e-5)


def test_interrupted_run_leaves_nothing(base, tmp_path):
    def images():
        yield from batches().take(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache(base, tmp_path, images=images())
    assert list(tmp_path.iterdir()) == [tmp_path / "module"]


def test_leftovers_of_killed_runs_are_removed(base, tmp_path):
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    # Of a killed run here; in a container of the same number; of a live run on a disk without
    # locks; and of one on another machine, whose processes have other numbers.
    processes = (dead.pid, os.getpid(), os.getppid(), dead.pid)
    names = [f".features-{n}.{process}.0.partial" for n, process in enumerate(processes)]
    for name in names:
        (tmp_path / name).mkdir()
    with locked(tmp_path / ".features-3.lock", "", ""):
        cache(base, tmp_path)
    assert sorted(each.name for each in tmp_path.glob(".*")) == names[2:]


def test_lack_of_space_is_an_error_before_anything_is_written(base, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=150)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"/features-\w+: .* needed .*--cache_dir"):
        cache(base, tmp_path, images=iter(()))
    assert list(tmp_path.iterdir()) == [tmp_path / "module"]


def test_full_disk_is_an_error_and_no_signal(base, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (180, hard))
    try:
        with pytest.raises(UserError, match=r"/features-\w+: File too large.*--cache_dir"):
            cache(base, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [tmp_path / "module"]


def test_of_two_runs_that_want_the_same_features_one_computes_them(base, tmp_path, capsys):
    in_use = f"in use by process {os.getpid()} on "

    def slowly():
        while in_use not in capsys.readouterr().err:
            time.sleep(0.01)
        yield from batches()

    with ThreadPoolExecutor(2) as runs:
        computing = runs.submit(cache, base, tmp_path, images=slowly())
        while not list(tmp_path.glob(".*.partial")):
            time.sleep(0.01)
        waiting = runs.submit(cache, base, tmp_path, images=iter(()))
        first, second = computing.result(), waiting.result()
    assert np.array_equal(first.gather(0, range(10))[0], second.gather(0, range(10))[0])
    assert not list(tmp_path.glob(".*"))


def test_progress_bar_on_a_terminal_only(base, tmp_path, capsys, monkeypatch):
    cache(base, tmp_path)
    assert "100%" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cache(base, tmp_path, key=("other data",))
    assert "features: 100%" in capsys.readouterr().err


def test_multi_label_targets_are_cached(base, tmp_path):
    source = Examples()
    source.is_multi_label = True
    targets = np.array([[1, 0], [1, 1]], np.float32)[LABELS]
    cached = cache(base, tmp_path / "cache", images=batches(targets), source=source)
    assert np.array_equal(cached.gather(0, np.arange(10))[1], targets)


class SlowExamples(Examples):
    """Examples of which one can take long to decode."""

    slow = None

    def load(self, key, image_format, crop=None):
        def wait(index):
            time.sleep(0.2 if index == self.slow else 0)
            return index

        return super().load(tf.ensure_shape(tf.numpy_function(wait, [key], tf.int64), []), crop)


@pytest.mark.slow
def test_cache_split_features(base, tmp_path, capsys):
    source, shape = SlowExamples(), ImageFormat(6, 3)
    validation = EvaluationPipeline(source, shape, 4)
    plain = TrainingPipeline(source, shape, 4, 5, seed=0)

    def cached_of(inputs, views):
        fingerprints, folder = ("train", "validation"), tmp_path / "cache"
        features = FeatureCache(base, folder)
        return cache_split_features(features, (inputs, validation), fingerprints, views)

    cached = cached_of(plain, [()])
    assert made(capsys) == 2
    for epoch in (0, 1):
        check_same(base, cached.training.batches(epoch), plain.batches(epoch))
    check_same(base, cached.validation.batches(), validation.batches())

    # Two more views; those of validation are cached.
    training = dataclasses.replace(plain, augmentations=choose_augmentations(("brightness",)))
    cached = cached_of(training, [("first",), ("second",)])
    assert made(capsys) == 2
    for epoch in (0, 1):
        check_same(base, cached.training.batches(epoch), training.batches(epoch))

    # Another order makes other views of the images.
    other_order = dataclasses.replace(training, shuffle_examples=2)
    cached = cached_of(other_order, [("first",)])
    assert made(capsys) == 1
    cached = cached_of(other_order, [("first",)])
    assert made(capsys) == 0
    check_same(base, cached.training.batches(0), other_order.batches(0))
    # But not of images that are not augmented.
    cached_of(dataclasses.replace(plain, shuffle_examples=2), [()])
    assert made(capsys) == 0

    # Each image is cached once, however often smaller classes are repeated.
    oversampled = dataclasses.replace(plain, is_oversampled=True)
    cached = cached_of(oversampled, [()])
    assert made(capsys) == 0
    check_same(base, cached.training.batches(0), oversampled.batches(0))

    # Without determinism, images arrive in another order; each gets its own features all the same.
    source.slow = 3
    options = PipelineOptions(deterministic=False)
    cached = cached_of(dataclasses.replace(plain, options=options), [("unordered",)])
    assert made(capsys) == 1
    check_same(base, cached.training.batches(0), plain.batches(0))


class RecordedExamples(Examples):
    """Ten images of a fold, which remember that they were decoded."""

    def __init__(self):
        self.decoded = 0

    def load(self, key, image_format, crop=None):
        def count(index):
            self.decoded += 1
            return index

        return super().load(tf.ensure_shape(tf.numpy_function(count, [key], tf.int64), []), crop)


class JoinedExamples(Examples):
    """The images of several folds, whose indices count them in order."""

    count = 20

    def __init__(self, parts):
        self.parts = tuple(SplitPart(name, source) for name, source in parts.items())

    def keys(self, random=None):
        order = random.permutation(20) if random else np.arange(20)
        return dataset_of(order.astype(np.int64))

    indices = keys

    def load(self, key, image_format, crop=None):
        raise NotImplementedError


@pytest.mark.parametrize("memory", [0, room._MEMORY_BYTES])
def test_folds_share_the_features_of_each_image(base, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(room, "_MEMORY_BYTES", memory)
    folds = {f"{number:08x}": RecordedExamples() for number in (1, 2, 3)}
    shape, features = ImageFormat(6, 3), FeatureCache(base, tmp_path / "cache")
    seen = []
    for validation in folds:
        others = {name: each for name, each in folds.items() if name != validation}
        training = TrainingPipeline(
            JoinedExamples(others), shape, 4, 5, 0, choose_augmentations(("brightness",))
        )
        alone = JoinedExamples({validation: folds[validation]})
        alone.count = 10
        inputs = training, EvaluationPipeline(alone, shape, 4)
        cached = cache_split_features(features, inputs, ("", ""), [("one",), ("two",)])
        views = [cached.training.source.gather(view, np.arange(20)) for view in (0, 1)]
        assert [labels.numpy().tolist() for _, labels in views] == [[*LABELS, *LABELS]] * 2
        seen += [view[0].numpy() for view in views]
    # Each image of each fold: in two views for training, and as it is for validation.
    assert [each.decoded for each in folds.values()] == [30] * 3
    # Fold 3 is the last to train beside both others; fold 1 is there with 2 and with 3.
    one_of = {"with 3": seen[2][:10], "with 2": seen[4][:10]}
    assert np.array_equal(*one_of.values())
    assert not np.array_equal(seen[2][:10], seen[2][10:])
    assert not np.array_equal(seen[2], seen[3])
