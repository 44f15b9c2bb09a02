import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from library.inputs.decoding import ImageFormat
from library.inputs.examples import DEFAULT_OPTIONS, without_autotune
from library.models import features as room
from library.models.feature_cache import cache_features
from library.models.features import FrozenBase, split_at_base
from project.inputs import EvaluationPipeline, TrainingPipeline
from project.networks.applications import application
from project.networks.hub import hub
from project.networks.simple import simple
from tests.helpers.hub_modules import save_module

PIXELS = np.random.default_rng(0).uniform(0, 255, (10, 6, 6, 3)).astype(np.float32)
LABELS = np.arange(10) % 2
ORDER = np.random.default_rng(1).permutation(10)


class Examples:
    """Ten pictures, in an order of their own."""

    is_shuffled = False
    class_counts = (5, 5)
    count = 10
    label_spec = tf.TensorSpec([], tf.int64)

    def keys(self, random=None, options=None):
        pytest.fail("these are images")

    def indices(self, random=None, options=None):
        return without_autotune(tf.data.Dataset.from_tensor_slices(ORDER.astype(np.int64)))


def batches():
    shuffled = without_autotune(tf.data.Dataset.from_tensor_slices((PIXELS[ORDER], LABELS[ORDER])))
    return shuffled.batch(4)


@pytest.fixture
def network(tmp_path):
    return make_network(tmp_path)


def make_network(folder):
    """A head on a frozen module of five features, which is saved below the folder."""
    save_module(folder / "module")
    return hub((6, 6, 3), 2, hub_handle=str(folder / "module"))


def keep(base, folder, key="", tell=None, given=None):
    """Return the Features, and what was told meanwhile."""
    told, examples = [], Examples()
    given = batches() if given is None else given
    tell = tell or told.append
    base = FrozenBase(base)
    return cache_features(base, given, examples.indices(), examples, folder, key, tell), told


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
    features, labels = next(
        iter(without_autotune(tf.data.Dataset.range(10)).batch(10).map(kept.batch))
    )
    assert np.allclose(features, base(PIXELS), atol=1e-5)
    assert np.array_equal(labels, LABELS)
    assert list(kept.keys().as_numpy_iterator()) == list(ORDER)
    assert np.array_equal(kept.labels([3, 4]), [1, 0])


class Pictures(Examples):
    """The same ten as inputs see them, one class twice as large as the other."""

    labels_of_all = np.arange(10) % 3 // 2
    class_counts = (7, 3)

    def keys(self, random=None, options=None):
        return without_autotune(
            tf.data.Dataset.from_tensor_slices(random.permutation(10) if random else ORDER)
        )

    indices = keys

    def labels(self, keys):
        return tf.gather(tf.constant(self.labels_of_all), keys)

    def load(self, key, image_format, crop=None):
        return tf.gather(tf.constant(PIXELS), key), self.labels(key)


@pytest.mark.parametrize("is_oversampled", [False, True])
def test_batches_are_those_of_the_images(network, tmp_path, is_oversampled):
    base, _ = split_at_base(network)
    frozen, pictures, shape = FrozenBase(base), Pictures(), ImageFormat(6, 3)
    validation = EvaluationPipeline(pictures, shape, 4)
    numbers = pictures.keys()
    kept = cache_features(frozen, validation.batches(), numbers, pictures, tmp_path, "", print)
    training = TrainingPipeline(pictures, shape, 4, 5, seed=0, is_oversampled=is_oversampled)
    both = room.CachedTrainingInputs((dataclasses.replace(training, source=kept),))
    for epoch, start in ((0, 0), (1, 0), (1, 1)):
        check_same(base, both.batches(epoch, start), training.batches(epoch, start))
    in_order = room.CachedEvaluationInputs(dataclasses.replace(validation, source=kept))
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
        batch_size, options = 2, DEFAULT_OPTIONS

        def __init__(self, view):
            self.source = Features(view)

        def keys(self, epoch):
            return without_autotune(tf.data.Dataset.range(10 * epoch, 10 * epoch + 6))

    views = room.CachedTrainingInputs((Inputs(0), Inputs(1)))
    seen = [next(views.batches(epoch, 1).as_numpy_iterator()) for epoch in range(3)]
    assert [(list(keys), list(view)) for keys, view in seen] == [
        ([2, 3], [0, 0]),
        ([12, 13], [1, 1]),
        ([22, 23], [0, 0]),
    ]
