"""Cached features: a frozen base runs once per image, and only the head runs in every epoch.

The head gets the very batches that it would get behind the base: cached features take the place of
the images in the same inputs, in the same order.
"""

import functools
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from library.errors import UserError, reason_of
from library.inputs.batching import prefetch
from library.inputs.caching import CachedSource
from library.inputs.disk_cache import (
    DiskCache,
    find_missing_space,
    join_caches,
    open_cache,
)
from library.inputs.examples import ExampleSource, SplitPart
from library.inputs.interfaces import EvaluationInputs, SplitInputs, TrainingInputs
from library.logging import progress_bar
from library.messages import counted
from library.models.blocks import BASE
from library.models.image_features import ImageFeatures
from library.models.inference import Inference

logger = logging.getLogger(__name__)

# The name of the layer whose output is cached, if that is not the base itself.
FEATURES = "features"
# Features of up to this size are read into memory, which is faster than reading them from disk.
_MEMORY_BYTES = 2 * 2**30
# Epochs of one data set, as many as have this number of examples.
_MAX_EPOCHS, _EXAMPLES_AT_ONCE = 10, 2**14


@dataclass(frozen=True)
class CachedFeatures:
    """What training on cached features needs.

    Attributes:
        head: The part of the network behind the base, which shares its layers.
        cache: The cache of the base's features.
        make: Returns inputs of features out of a cache.
        epochs: The number of epochs after which the base is trained too, and runs in every epoch.
    """

    head: keras.Model
    cache: "FeatureCache"
    make: Callable[["FeatureCache"], SplitInputs]
    epochs: float = math.inf

    def make_inputs(self) -> SplitInputs:
        """Return inputs of features.

        It runs the base with its present weights, so call it only when these are final.
        """
        return self.make(self.cache)

    @property
    def is_frozen_to_the_end(self) -> bool:
        """Whether the base is never trained."""
        return self.epochs == math.inf


class CachedTrainingInputs:
    """Training inputs of cached features, from another view of the images in each epoch."""

    def __init__(self, inputs: TrainingInputs, views: int) -> None:
        """Take features from `inputs`, whose FeatureSource has this number of views."""
        self._inputs, self._views = inputs, views
        self.source = cast(FeatureSource, inputs.source)
        # Making a data set takes longer than going through a few hundred features.
        self.epochs_at_once = max(1, min(_MAX_EPOCHS, _EXAMPLES_AT_ONCE // inputs.examples))

    def batches(self, epoch: int, start_batch: int = 0, epochs: int = 1) -> tf.data.Dataset:
        """Return the (features, labels) batches of some epochs.

        Args:
            epoch: The first one.
            start_batch: Number of its batches to skip.
            epochs: Number of epochs.
        """
        inputs, every = self._inputs, range(epoch, epoch + epochs)
        first, *others = (inputs.keys(each).batch(inputs.batch_size) for each in every)
        keys = functools.reduce(tf.data.Dataset.concatenate, others, first.skip(start_batch))
        views = np.repeat([each % self._views for each in every], inputs.batches_per_epoch)
        joined = tf.data.Dataset.zip(
            (tf.data.Dataset.from_tensor_slices(views[start_batch:]), keys)
        )
        gather = tf.autograph.experimental.do_not_convert(self.source.gather)
        return prefetch(joined.map(gather), inputs.options)


class CachedEvaluationInputs:
    """Evaluation inputs of cached features."""

    def __init__(self, inputs: EvaluationInputs) -> None:
        """Take features from `inputs`, which have a FeatureSource."""
        self.batch_size = inputs.batch_size
        self.source = cast(FeatureSource, inputs.source)
        self._keys = _read_indices(self.source.keys())

    def batches(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yield the (features, labels) batches."""
        for start in range(0, len(self._keys), self.batch_size):
            yield self.source.gather(0, self._keys[start : start + self.batch_size])


def split_at_base(
    network: keras.Model, *, is_trained_later: bool = False
) -> tuple[keras.Model, keras.Model] | None:
    """Return (base, head), which share the network's layers, or None unless its base is frozen.

    The base is from pixels to features, the head from features to logits. Features are the output
    of the layer FEATURES, or else of the base.

    Args:
        network: The network.
        is_trained_later: Whether the base counts as frozen although it is trainable.
    """
    names = [each.name for each in network.layers]
    if BASE not in names:
        return None
    if network.get_layer(BASE).trainable_variables and not is_trained_later:
        return None
    features = (
        network.get_layer(FEATURES).output
        if FEATURES in names
        else network.layers[names.index(BASE) + 1].input
    )
    return keras.Model(network.input, features), keras.Model(features, network.output)


@dataclass(frozen=True)
class ReusedNetwork:
    """A network whose base stays frozen, and whose head several trainers train in turn.

    Attributes:
        network: The network.
        values: Those of its variables before it was trained.
        cache: The cache of its base's features.
    """

    network: keras.Model
    values: list[np.ndarray]
    cache: "FeatureCache"

    @classmethod
    def of(cls, network: keras.Model, cached: CachedFeatures | None) -> "ReusedNetwork | None":
        """Return a network that was not trained yet; None if its base will be trained."""
        if not cached or not cached.is_frozen_to_the_end:
            return None
        return cls(network, [each.numpy() for each in network.variables], cached.cache)

    def reset(self) -> keras.Model:
        """Return the network as it was before it was trained."""
        for variable, value in zip(self.network.variables, self.values, strict=True):
            # The base is the same as before, unless a checkpoint had another one.
            if not np.array_equal(variable.numpy(), value):
                variable.assign(value)
        return self.network


class FeatureSource(CachedSource):
    """Examples whose cached features take the place of their images. A key is an index."""

    def __init__(
        self,
        source: ExampleSource,
        views: Sequence[Sequence[DiskCache]],
        feature_shape: tuple[int, ...],
    ) -> None:
        """Join the caches of each view of each part of the examples.

        Args:
            source: The examples.
            views: For each view, the caches of the parts.
            feature_shape: Shape of the features of an image.
        """
        super().__init__(source, join_caches(views[0]).labels)
        every = join_caches([each for caches in views for each in caches])
        self._features: Any = every.array(feature_shape, "<f4")
        if self._features.nbytes <= _MEMORY_BYTES:
            with tf.device("CPU"):
                self._features = tf.constant(np.array(self._features))

    @cached_property
    def gather(self) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """A function that returns (features, labels) for the number of a view and some keys."""
        # Traced only once: tracing takes longer than an epoch.
        signature = [tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int64)]
        return tf.function(self._gather, input_signature=signature, autograph=False)

    def _gather(self, view: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        labels, rows = self.labels(keys), view * self.count + keys
        if tf.is_tensor(self._features):
            return tf.gather(self._features, rows), labels
        features = tf.numpy_function(lambda at: self._features[at], [rows], tf.float32)
        return tf.ensure_shape(features, [None, *self._features.shape[1:]]), labels


class FeatureCache:
    """The features that a base computes with its present weights, cached in a folder.

    The base is compiled once for all splits and views, as long as its weights stay.
    """

    def __init__(self, base: keras.Model, folder: str | Path) -> None:
        self.base = base
        self._folder = Path(folder)
        self.feature_shape: tuple[int, ...] = base.output_shape[1:]
        self._compiled: tuple[ImageFeatures, bytes] | None = None

    def compile(self) -> tuple[ImageFeatures, bytes]:
        """Compile the base with its present weights, unless it was compiled with these.

        What identifies the base are the weights, and the features of one image, which differ if
        the graph or the preprocessing does, however it is written.
        """
        weights = b"".join(np.ascontiguousarray(each).tobytes() for each in self.base.weights)
        if self._compiled is None or not self._compiled[1].startswith(weights):
            infer = Inference(self.base)
            image = np.random.default_rng(0).uniform(0, 255, (1, *self.base.input_shape[1:]))
            fingerprint = weights + infer(image.astype(np.float32)).tobytes()
            self._compiled = ImageFeatures(infer), fingerprint
        return self._compiled

    def read(
        self,
        source: ExampleSource,
        make_batches: Callable[[], Iterable[tuple[Any, Any]]],
        indices: tf.data.Dataset,
        key: tuple[Any, ...],
        which: str = "",
    ) -> DiskCache:
        """Return the features of all examples, from the folder if an earlier run filled it.

        Args:
            source: The examples.
            make_batches: Makes (images, labels) batches that have each example once; called only
                if the folder lacks the features, because tracing takes long.
            indices: The examples' indices, int64, in the order of these batches.
            key: Whatever makes the features differ, besides the base.
            which: Which of the examples' features these are, for the log.

        Raises:
            UserError: The cache can't be written.
        """
        images, fingerprint = self._compiled or self.compile()
        name = hashlib.sha256(repr(key).encode() + fingerprint).hexdigest()[:32]
        folder = self._folder / f"features-{name}"
        # float32, whatever the base computes in.
        row_bytes = 4 * math.prod(self.feature_shape)

        def make_rows() -> Iterator[tuple[int, bytes, Any]]:
            if missing := find_missing_space(self._folder, source.count * row_bytes):
                raise OSError(missing)
            count = counted(source.count, "image")
            logger.info(f"caching the base's features of {count}{which} in {self._folder}")
            positions = iter(_read_indices(indices))
            with progress_bar(source.count, "features", unit=" images") as bar:
                for features, label in images.compute(make_batches()):
                    yield next(positions), features.tobytes(), label
                    bar.update()

        try:
            return open_cache(folder, source.count, source.label_spec, make_rows, row_bytes)
        except OSError as error:
            raise UserError(
                f"cannot cache features in {folder}: {reason_of(error)}; free some space, choose "
                "another --cache_dir, or use --cache_features never"
            ) from error


def _read_indices(dataset: tf.data.Dataset) -> np.ndarray:
    # In large batches, because single elements take long.
    return np.concatenate(list(dataset.batch(2**16).as_numpy_iterator()))


def cache_split_features(
    cache: FeatureCache,
    inputs: tuple[TrainingInputs, EvaluationInputs],
    fingerprints: Sequence[str],
    views: Sequence[tuple[Any, ...]],
) -> SplitInputs:
    """Return inputs of the base's features, after running it over all images not cached yet.

    Args:
        cache: Of a base as `split_at_base` returns it.
        inputs: Inputs of the training and the validation images.
        fingerprints: Hashes of the two splits.
        views: For each view of the training images, beginning with that of epoch 0, what makes it
            differ besides the order; () if images are not augmented.

    Raises:
        UserError: The cache can't be written.
    """
    training, validation = inputs
    cache.compile()
    parts, validation_parts = (
        each.source.parts or (SplitPart(fingerprint, each.source),)
        for each, fingerprint in zip(inputs, fingerprints, strict=True)
    )
    # Each image once, although training may repeat those of smaller classes; and in order, so that
    # features are those of their index.
    options = replace(training.options, deterministic=True)
    once = replace(training, is_oversampled=False, options=options)
    by_part = [
        _cache_views(cache, once.for_part(part) if training.source.parts else once, part, views)
        for part in parts
    ]
    by_view = list(zip(*by_part, strict=True))
    in_order = [_cache_in_order(cache, validation, part) for part in validation_parts]
    shape = cache.feature_shape
    source = FeatureSource(training.source, by_view, shape)
    validation_source = FeatureSource(validation.source, [in_order], shape)
    return SplitInputs(
        CachedTrainingInputs(replace(training, source=source), len(views)),
        CachedEvaluationInputs(replace(validation, source=validation_source)),
    )


def _cache_views(
    cache: FeatureCache,
    training: TrainingInputs,
    part: SplitPart,
    views: Sequence[tuple[Any, ...]],
) -> list[DiskCache]:
    """Return the features of each view of a part of the training images, which `training` reads.

    They depend on no other part, so that all splits that have this part share them.
    """
    source = part.source
    # Its keys are the examples' indices.
    index_source = CachedSource(source, np.zeros(source.count, np.int64))
    indexed = replace(training, source=index_source)
    caches = []
    for epoch, view in enumerate(views):
        indices = indexed.keys(epoch)
        changes: tuple[Any, ...] = ()
        if view:
            # An example's augmentations depend on its position in the order.
            changes = (view, hashlib.sha256(_read_indices(indices).tobytes()).hexdigest())
        key = (part.fingerprint, training.image_format, changes)
        which = f", view {epoch + 1} of {len(views)}," if len(views) > 1 else ""
        make_batches = partial(training.batches, epoch)
        caches.append(cache.read(source, make_batches, indices, key, which))
    return caches


def _cache_in_order(
    cache: FeatureCache, validation: EvaluationInputs, part: SplitPart
) -> DiskCache:
    """Return the features of a part of the validation images."""
    source = part.source
    key = (part.fingerprint, validation.image_format, ())
    own = replace(validation, source=source)
    return cache.read(source, own.batches, source.indices(), key)
