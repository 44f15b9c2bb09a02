"""Images cached from one epoch to the next, in memory or on disk: `cache: memory|disk`.

A cache holds what precedes every random change: pixels at the network's size or, if a crop chooses
what to decode, the encoded image, which only saves reading. The order of an epoch is the same with
and without a cache.
"""

import copy
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from library.dataset.worker_pool import available_cores
from library.errors import SettingsError, UserError
from library.inputs.corruption import explain_source_errors
from library.inputs.decoding import Crop, ImageFormat, decode, read_shape
from library.inputs.disk_cache import (
    DiskCache,
    JoinedCache,
    Row,
    find_missing_space,
    join_caches,
    open_cache,
)
from library.inputs.examples import Dataset, ExampleSource, Random, SplitPart
from library.inputs.worker_slice import WorkerSlice
from library.limits import memory_bytes


class CachedSource(ExampleSource):
    """Other examples, each read and, if nothing crops, decoded only once. A key is an index."""

    def __init__(self, source: ExampleSource, labels: np.ndarray) -> None:
        self._source = source
        # On the CPU, which prepares images; a GPU has better use for its memory.
        with tf.device("CPU"):
            self._labels = tf.convert_to_tensor(labels)
        # Indices count all examples, even if `_source` becomes some of them.
        self._whole = self
        self.parts = source.parts
        self.is_shuffled = source.is_shuffled
        self.interleaved = source.interleaved
        self.count = source.count
        self.mean_bytes = source.mean_bytes
        self.class_counts = source.class_counts
        self.is_multi_label = source.is_multi_label

    @property
    def failure(self) -> UserError | None:
        """Why the source can't be read, or None."""
        return self._source.failure

    def keys(self, random: Random = None) -> Dataset:
        """Return the examples' indices, in the order of the source."""
        return self._source.indices(random)

    indices = keys

    def labels(self, keys: tf.Tensor) -> tf.Tensor:
        """Return the class ids of a batch of keys, int64 (n,). Not for multi-label images."""
        return tf.gather(self._labels, keys)

    def filename(self, key: tf.Tensor) -> tf.Tensor:
        """Return the file name of an example; all are read at the first call."""
        return tf.gather(self._whole._filenames, key)

    def default_name(self, position: tf.Tensor) -> tf.Tensor:
        """Return the name of an example without a file name, by its position in order."""
        return self._source.default_name(position)

    @cached_property
    def _filenames(self) -> tf.Tensor:
        with tf.init_scope():  # outside of the graph that asks first
            filenames = np.empty(self.count, object)
            pairs = (
                self._source.indices(),
                self._source.keys().map(
                    tf.autograph.experimental.do_not_convert(self._source.filename)
                ),
            )
            for index, filename in Dataset.zip(pairs).as_numpy_iterator():
                filenames[index] = filename
            return tf.convert_to_tensor(filenames, tf.string)

    def load(
        self, key: tf.Tensor, image_format: ImageFormat, crop: Crop | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return (uint8 pixels, label), decoding if the encoded image is cached."""
        content, label = self.stored_bytes(key), tf.gather(self._labels, key)
        if content.dtype == tf.uint8:
            return tf.reshape(content, image_format.shape), label
        return decode(content, read_shape(content), image_format, crop), label

    def for_worker(self, worker_slice: WorkerSlice) -> "CachedSource":
        """Return the examples in a worker's own shards, out of the cache of all."""
        part = copy.copy(self)
        part._source = self._source.for_worker(worker_slice)
        part.count = part._source.count
        return part

    def find_corruption(self) -> str | None:
        """Return one line that names what can't be read, or None if nothing is known."""
        return self._source.find_corruption()


class MemoryCachedSource(CachedSource):
    """Examples cached in memory."""

    def __init__(self, source: ExampleSource, image_format: ImageFormat | None) -> None:
        _check_memory(_cache_bytes(source, image_format))
        contents = np.empty(source.count, object)
        if image_format:
            contents = np.empty((source.count, *image_format.shape), np.uint8)
        spec = source.label_spec
        labels = np.empty((source.count, *spec.shape), spec.dtype.as_numpy_dtype)
        for index, content, label in _read_all(source, image_format):
            contents[index], labels[index] = content, label
        with tf.device("CPU"):
            self._contents = tf.convert_to_tensor(contents)
        super().__init__(source, labels)

    def stored_bytes(self, key: tf.Tensor) -> tf.Tensor:
        """Return uint8 pixels, or the encoded image, of an example."""
        return tf.gather(self._contents, key)


class DiskCachedSource(CachedSource):
    """Examples cached on disk."""

    def __init__(
        self, source: ExampleSource, cache: DiskCache | JoinedCache, has_pixels: bool
    ) -> None:
        super().__init__(source, cache.labels)
        self._cache = cache
        self._has_pixels = has_pixels

    def stored_bytes(self, key: tf.Tensor) -> tf.Tensor:
        """Return uint8 pixels, flat, or the encoded image, of an example."""
        content = tf.ensure_shape(tf.numpy_function(self._cache.read, [key], tf.string), [])
        return tf.io.decode_raw(content, tf.uint8) if self._has_pixels else content

    def find_corruption(self) -> str | None:
        """Return one line that names what can't be read, or None if nothing is known."""
        return self._cache.failure or super().find_corruption()


def cache_examples(
    source: ExampleSource,
    image_format: ImageFormat | None,
    kind: str,
    cache_dir: str | Path = "",
    fingerprint: str | None = None,
) -> ExampleSource:
    """Return the examples, cached.

    The first run on some data fills the cache, which takes about as long as an epoch; on disk it
    then stays.

    Args:
        source: The examples.
        image_format: Shape of the pixels to cache; None to cache the encoded images, because a
            crop chooses what to decode.
        kind: none, memory or disk.
        cache_dir: Folder of the caches on disk.
        fingerprint: Hash of the data; None if there is none.

    Raises:
        SettingsError: The cache is impossible or does not fit.
        DataError: An example can't be read, or the cache on disk is damaged.
    """
    if kind == "none":
        return source
    if kind == "memory":
        return MemoryCachedSource(source, image_format)
    if fingerprint is None:
        raise SettingsError("cache disk needs data with a fingerprint; a generator has none")
    parts = source.parts or (SplitPart(fingerprint, source),)
    caches = [_cache_on_disk(part, image_format, Path(cache_dir)) for part in parts]
    return DiskCachedSource(source, join_caches(caches), has_pixels=image_format is not None)


def _cache_on_disk(part: SplitPart, image_format: ImageFormat | None, cache_dir: Path) -> DiskCache:
    source = part.source
    folder = cache_dir / f"images-{part.fingerprint[:32]}-{image_format or 'encoded'}"

    def make_rows() -> Iterator[Row]:
        if missing := find_missing_space(folder.parent, _cache_bytes(source, image_format)):
            raise SettingsError(f"cache disk does not fit: {missing}")
        for index, content, label in _read_all(source, image_format):
            yield index, content.tobytes() if image_format else content, label

    return open_cache(folder, source.count, source.label_spec, make_rows)


def _read_all(
    source: ExampleSource, image_format: ImageFormat | None
) -> Iterator[tuple[int, Any, Any]]:
    """Yield (index, pixels or encoded bytes, label) of each example."""

    def prepare(index: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return index, *(
            source.load(key, image_format) if image_format else source.parse(key, "encoded")
        )

    indexed = Dataset.zip(source.indices(), source.keys())
    with explain_source_errors([source]):
        yield from indexed.map(prepare, available_cores()).prefetch(64).as_numpy_iterator()


def _cache_bytes(source: ExampleSource, image_format: ImageFormat | None) -> int:
    return source.count * (math.prod(image_format.shape) if image_format else source.mean_bytes)


def _check_memory(needed: int) -> None:
    available = memory_bytes()
    if needed > available:
        raise SettingsError(
            f"cache memory does not fit: {needed / 1e9:,.1f} GB are needed, there are "
            f"{available / 1e9:,.1f} GB; use cache disk or none"
        )
