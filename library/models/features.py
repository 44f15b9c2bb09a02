"""What a frozen base gives for each image, kept on disk: the base runs once, the head every epoch.

The head then sees the very batches that it would have seen behind the base: kept features take the
place of the images in the same inputs, in the same order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from library.inputs.batching import prefetch
from library.models.blocks import BASE
from library.models.inference import Inference

FEATURES, LABELS = "features.npy", "labels.npy"
# Up to here features are read into memory, which serves them faster.
_MEMORY_BYTES = 2 * 2**30


@dataclass(frozen=True)
class CachedFeatures:
    """What trains on kept features: the head of a network, and a function that makes its Inputs.

    It runs the base as it is when called, so call it when the base's weights are what they will be.
    """

    head: keras.Model
    make_inputs: Callable[[], Any]


@dataclass(frozen=True)
class CachedTrainingInputs:
    """Training inputs that give kept features: of the views of the images, another each epoch.

    `views` are training inputs whose source is Features, one for each view.
    """

    views: tuple

    def batches(self, epoch, start_batch=0):
        """Give (features, labels) batches, as the training inputs give images."""
        inputs = self.views[epoch % len(self.views)]
        return _gather(inputs, inputs.keys(epoch), start_batch)


@dataclass(frozen=True)
class CachedEvaluationInputs:
    """Evaluation inputs whose source is Features, to give these."""

    inputs: object

    @property
    def batch_size(self):
        """How many images a batch stands for."""
        return self.inputs.batch_size

    def batches(self):
        """Give (features, labels) batches, as the evaluation inputs give images."""
        return self._batches

    @cached_property
    def _batches(self):
        # Once: to make a data set takes longer than to go through one of features.
        return _gather(self.inputs, self.inputs.source.keys(None, self.inputs.options))


def split_at_base(network):
    """Give (base, head), which share the network's layers, or None if its base is not frozen.

    The base takes pixels and gives features; the head takes these and gives scores.
    """
    names = [each.name for each in network.layers]
    if BASE not in names or network.get_layer(BASE).trainable_variables:
        return None
    features = network.layers[names.index(BASE) + 1].input
    return keras.Model(network.input, features), keras.Model(features, network.output)


class Features:
    """Kept features as a source of examples, in place of the images that they were made of."""

    def __init__(self, examples, folder):
        self._examples = examples
        self.is_shuffled = examples.is_shuffled
        self.class_counts = examples.class_counts
        self.count = examples.count
        self._labels = tf.constant(np.load(folder / LABELS))
        self._features = np.load(folder / FEATURES, mmap_mode="r")
        if self._features.nbytes <= _MEMORY_BYTES:
            self._features = tf.constant(np.array(self._features))

    def keys(self, *how):
        """Return the examples' numbers, in the very order of the examples themselves."""
        return _numbers(self._examples, *how)

    def labels(self, keys):
        """Return int64 (n,) for a batch of keys."""
        return tf.gather(self._labels, keys)

    @cached_property
    def batch(self):
        """A function that gives (features, labels) for a batch of keys."""
        # Traced once, not anew in each epoch, which would take longer than the epoch.
        keys = tf.TensorSpec([None], tf.int64)
        return tf.function(self._batch, input_signature=[keys], autograph=False)

    def _batch(self, keys):
        labels = self.labels(keys)
        if tf.is_tensor(self._features):
            return tf.gather(self._features, keys), labels
        features = tf.numpy_function(lambda at: self._features[at], [keys], tf.float32)
        return tf.ensure_shape(features, [None, *self._features.shape[1:]]), labels


class Numbers:
    """An example's number in place of each example: what tells which features are whose."""

    def __init__(self, examples):
        self._examples = examples
        self.is_shuffled = examples.is_shuffled
        self.class_counts = examples.class_counts
        self.count = examples.count

    def keys(self, *how):
        """Return the numbers, in the order of the examples."""
        return _numbers(self._examples, *how)


class FrozenBase:
    """A base as it is now, compiled once for all the splits and views that it runs over."""

    def __init__(self, base):
        self._weights = base.weights
        self.input_shape, self.feature_shape = base.input_shape[1:], base.output_shape[1:]
        # Gives float32 features of a batch of pixels.
        self.features = Inference(base)

    @cached_property
    def fingerprint(self):
        """Return bytes that tell this base from others: its weights, what it makes of one picture.

        The latter tells graphs and preprocessing apart, however they are written.
        """
        picture = np.random.default_rng(0).uniform(0, 255, (1, *self.input_shape))
        arrays = (*self._weights, self.features(picture.astype(np.float32)))
        return b"".join(np.ascontiguousarray(each).tobytes() for each in arrays)


def _gather(inputs, keys, start_batch=0):
    """Return batches of what is kept for these keys: gathered whole, not image by image."""
    keys = keys.skip(start_batch * inputs.batch_size).batch(inputs.batch_size)
    return prefetch(keys.map(inputs.source.batch), inputs.options)


def _numbers(examples, *how):
    # Cached examples have numbers for keys already.
    return getattr(examples, "indices", examples.keys)(*how)
