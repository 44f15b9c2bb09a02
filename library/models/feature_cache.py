"""The features of a frozen base, computed once and cached on disk."""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from library.errors import UserError, reason_of
from library.inputs.caching import CachedSource, RowFormat, find_missing_space, open_cache
from library.inputs.examples import ExampleSource
from library.inputs.interfaces import EvaluationInputs, SplitInputs, TrainingInputs
from library.messages import counted
from library.models.features import (
    CachedEvaluationInputs,
    CachedTrainingInputs,
    FeatureSource,
    FrozenBase,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexedBatches:
    """Images to compute features of, each example once.

    Attributes:
        batches: (images, labels) batches.
        indices: The examples' indices, int64, in the order of these batches.
        key: Whatever makes the features differ, besides the base.
    """

    batches: Iterable[tuple[Any, Any]]
    indices: tf.data.Dataset
    key: tuple[Any, ...]


def cache_features(
    base: FrozenBase, source: ExampleSource, images: IndexedBatches, folder: str | Path
) -> FeatureSource:
    """Return the features of all examples, from the cache if an earlier run filled it.

    Args:
        base: The base.
        source: The examples.
        images: Their images.
        folder: The folder of caches.

    Raises:
        UserError: The cache can't be written.
    """
    name = hashlib.sha256(repr(images.key).encode() + base.fingerprint).hexdigest()[:32]
    folder = Path(folder) / f"features-{name}"
    # float32, whatever the base computes in.
    row_bytes = 4 * math.prod(base.feature_shape)

    def make_rows() -> Iterator[tuple[int, bytes, Any]]:
        if missing := find_missing_space(folder.parent, source.count * row_bytes):
            raise OSError(missing)
        logger.info(
            "caching the base's features of %s in %s", counted(source.count, "image"), folder
        )
        indices = iter(read_indices(images.indices))
        # No bar unless stderr is a terminal.
        with tqdm(total=source.count, unit=" images", desc="features", disable=None) as bar:
            for pixels, labels in images.batches:
                features = base.features(pixels)
                for row, label in zip(features, np.asarray(labels), strict=True):
                    yield next(indices), row.tobytes(), label
                bar.update(len(features))

    row_format = RowFormat(source.count, source.label_spec, row_bytes)
    try:
        cache = open_cache(folder, row_format, make_rows, verify=True)
    except OSError as error:
        raise UserError(
            f"cannot cache features in {folder}: {reason_of(error)}; free some space, choose "
            "another --cache_dir, or use --cache_features never"
        ) from error
    return FeatureSource(source, cache, base.feature_shape)


def read_indices(dataset: tf.data.Dataset) -> np.ndarray:
    """Return the elements of a data set of indices as an array."""
    # In large batches, because single elements take long.
    return np.concatenate(list(dataset.batch(2**16).as_numpy_iterator()))


def cache_split_features(
    base: keras.Model,
    training: TrainingInputs,
    validation: EvaluationInputs,
    fingerprints: Sequence[str],
    views: Sequence[tuple[Any, ...]],
    folder: str | Path,
) -> SplitInputs:
    """Return inputs of the base's features, after running it over all images not cached yet.

    Args:
        base: A base as `split_at_base` returns it.
        training: Inputs of the training images.
        validation: Inputs of the validation images.
        fingerprints: Hashes of the two splits.
        views: For each view of the training images, beginning with that of epoch 0, what makes it
            differ besides the order; () if images are not augmented.
        folder: The folder of caches.

    Raises:
        UserError: The cache can't be written.
    """
    frozen = FrozenBase(base)
    # Each image once, although training may repeat those of smaller classes; and in order, so that
    # features are those of their index.
    options = replace(training.options, deterministic=True)
    once = replace(training, is_oversampled=False, options=options)
    indexed = replace(once, source=_index_source(training.source))
    cached = []
    for epoch, view in enumerate(views):
        indices = indexed.keys(epoch)
        key: tuple[Any, ...] = (fingerprints[0], training.image_format, view)
        if view:
            # An example's augmentations depend on its position in the order.
            order = hashlib.sha256(read_indices(indices).tobytes()).hexdigest()
            key = (fingerprints[0], training.image_format, (view, order))
        images = IndexedBatches(once.batches(epoch), indices, key)
        source = cache_features(frozen, training.source, images, folder)
        cached.append(replace(training, source=source))
    images = IndexedBatches(
        validation.batches(),
        validation.source.indices(),
        (fingerprints[1], validation.image_format, ()),
    )
    source = cache_features(frozen, validation.source, images, folder)
    return SplitInputs(
        CachedTrainingInputs(tuple(cached)),
        CachedEvaluationInputs(replace(validation, source=source)),
    )


def _index_source(source: ExampleSource) -> CachedSource:
    """Return a source whose keys are the examples' indices."""
    return CachedSource(source, np.zeros(source.count, np.int64))
