"""Cached features in a profile: the base runs over some images, and blank features stand for all.

So nothing is cached, which might take hours, and the head trains on as many features as it would.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from library.inputs.examples import ExampleSource
from library.inputs.interfaces import SplitInputs, TrainingInputs
from library.models.features import CachedFeatures, FeatureCache


class BlankFeatures(FeatureCache):
    """Features of zeros; `images` counts those that a base would have run over."""

    images = 0

    def compile(self) -> Any:
        """Do nothing: no base is run."""

    def read(
        self,
        source: ExampleSource,
        make_batches: Callable[[], Iterable[tuple[Any, Any]]],
        indices: tf.data.Dataset,
        key: tuple[Any, ...],
        which: str = "",
    ) -> Any:
        """Return features for all examples of a source; the other arguments are not needed."""
        self.images += source.count
        return _BlankRows(source)


class _BlankRows:
    """Stands for the DiskCache of a source's features."""

    def __init__(self, source: ExampleSource) -> None:
        spec = source.label_spec
        self.labels = np.zeros((source.count, *spec.shape), spec.dtype.as_numpy_dtype)

    def array(self, row_shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return rows of zeros, which take no memory."""
        return np.broadcast_to(np.zeros((), dtype), (len(self.labels), *row_shape))


def blank_inputs(cached: CachedFeatures) -> tuple[SplitInputs, int]:
    """Return inputs of blank features, and the number of images that a base would run over."""
    cache = BlankFeatures(cached.cache.base, "")
    return cached.make(cache), cache.images


def base_seconds(cached: CachedFeatures, training: TrainingInputs, seconds: float) -> float:
    """Return the seconds per image of the base and its inputs; at most an epoch is measured."""
    images, _ = cached.cache.compile()
    batches = training.batches(0)

    def measure(part: tf.data.Dataset) -> tuple[float, int]:
        start = time.perf_counter()
        count = sum(1 for _ in images.compute(part))
        return time.perf_counter() - start, count

    taken, count = measure(batches.take(1))
    # Not the same images again, whose features are known.
    more = min(int(seconds / taken), training.batches_per_epoch - 1)
    if more > 0:
        taken, count = measure(batches.skip(1).take(more))
    return taken / count
