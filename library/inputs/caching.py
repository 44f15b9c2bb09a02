"""Caches that hold one row per example: of images, in memory or on disk; of features, on disk.

An image cache holds what precedes every random change: pixels at the network's size or, if a crop
chooses what to decode, the encoded image, which only saves reading. The order of an epoch is the
same with and without a cache.
"""

import contextlib
import copy
import hashlib
import io
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

from library.dataset.records import parse_record
from library.dataset.worker_pool import available_cores
from library.errors import DataError, SettingsError, UserError
from library.files import PARTIAL, locked, new_folder, write_file
from library.inputs.corruption import explain_source_errors
from library.inputs.decoding import Crop, ImageFormat, decode
from library.inputs.examples import DEFAULT_OPTIONS, Dataset, ExampleSource, PipelineOptions, Random
from library.inputs.worker_slice import WorkerSlice

logger = logging.getLogger(__name__)

_BLOBS, _INDEX = "blobs", "index"
_INDEX_FIELDS = [("offset", "<i8"), ("size", "<i8"), ("crc", "<u4")]
# The memory limit of a container.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class RowFormat:
    """The rows of a cache: how many, the spec of their labels, and the size of each in bytes."""

    count: int
    label_spec: tf.TensorSpec
    # None if they differ in size.
    row_bytes: int | None = None


class DiskCache:
    """A row of bytes and a label per example index, in a folder. Raises DataError if damaged.

    All rows are in one file. The index holds offset, size, CRC-32C and label of each, preceded by
    its own SHA-256.
    """

    def __init__(self, folder: Path) -> None:
        self._damage = f"the cache {folder} is damaged: delete it"
        # Why the last row could not be read.
        self.failure: str | None = None
        try:
            self._rows = _read_index(folder / _INDEX)
            self._file = (folder / _BLOBS).open("rb")
        except (OSError, ValueError):
            raise DataError(self._damage) from None
        weakref.finalize(self, self._file.close)
        if os.fstat(self._file.fileno()).st_size != self._rows["size"].sum():
            raise DataError(self._damage)

    @property
    def labels(self) -> np.ndarray:
        """The label of each example, by index."""
        return self._rows["label"]

    def read(self, index: int) -> bytes:
        """Return the row of an example. Raises DataError if it is damaged."""
        row = self._rows[index]
        content = os.pread(self._file.fileno(), int(row["size"]), int(row["offset"]))
        if google_crc32c.value(content) != row["crc"]:
            self.failure = self._damage
            raise DataError(self.failure)
        return content

    def verify(self) -> None:
        """Read every row. Raises DataError if one is damaged."""
        for index in range(len(self._rows)):
            self.read(index)

    def array(self, row_shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Map the rows, unverified, as an array (count, *row_shape); they must have `row_bytes`."""
        return np.memmap(self._file, dtype, "r", shape=(len(self._rows), *row_shape))


def open_cache(
    folder: Path,
    row_format: RowFormat,
    make_rows: Callable[[], Iterable[tuple[int, bytes, Any]]],
    *,
    verify: bool = False,
) -> DiskCache:
    """Open the cache in a folder; fill it first unless it is there. It is complete or absent.

    Of the processes that want the same cache at once, one fills it while the others wait.

    Args:
        folder: `<kind>-<key>`, where the key differs whenever the rows would.
        row_format: Count, labels and size of the rows.
        make_rows: Yields (index, row, label) of each example once, in any order. What it raises
            leaves no cache behind.
        verify: Check every row now, and fill a damaged cache again. Without it, only the index is
            checked now, and `read` checks each row.

    Raises:
        DataError: The cache is damaged.
        OSError: The cache can't be written.
    """
    if not _is_filled(folder, verify):
        _remove_leftovers(folder)
        with locked(folder.with_name(f".{folder.name}.lock"), f"the cache {folder}", wait=True):
            # The process that held the lock may have filled it.
            if not _is_filled(folder, verify):
                if folder.exists():
                    logger.warning("the cache %s is damaged; filling it again", folder)
                _fill(folder, row_format, make_rows())
    return DiskCache(folder)


def find_missing_space(folder: Path, needed: int) -> str | None:
    """Return a few words about the disk of `folder` if it lacks the bytes needed, else None."""
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return None
    return f"{needed / 1e9:,.2g} GB are needed in {folder}, {free / 1e9:,.2g} GB are free"


def _is_filled(folder: Path, verify: bool) -> bool:
    if not folder.exists() or not verify:
        return folder.exists()
    try:
        DiskCache(folder).verify()
    except DataError:
        return False
    return True


def _fill(folder: Path, row_format: RowFormat, made: Iterable[tuple[int, bytes, Any]]) -> None:
    spec = row_format.label_spec
    label_field = ("label", spec.dtype.as_numpy_dtype, tuple(spec.shape))
    rows = np.zeros(row_format.count, [*_INDEX_FIELDS, label_field])
    with new_folder(folder) as partial:
        # Not mapped: running out of disk would end the process.
        with (partial / _BLOBS).open("wb") as file:
            for index, content, label in made:
                if row_format.row_bytes:
                    file.seek(index * row_format.row_bytes)
                rows[index] = (file.tell(), len(content), google_crc32c.value(content), label)
                file.write(content)
        # With its SHA-256 in front: a label that changed would be learned.
        file = io.BytesIO()
        np.save(file, rows)
        write_file(partial / _INDEX, hashlib.sha256(file.getvalue()).digest() + file.getvalue())


def _read_index(path: Path) -> np.ndarray:
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("the hash does not match")
    return np.load(io.BytesIO(content))


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left of caches of this kind; a live one holds its lock."""
    for partial in folder.parent.glob(f".{folder.name.partition('-')[0]}-*{PARTIAL}"):
        lock = partial.with_name(partial.name.rsplit(".", 3)[0] + ".lock")
        with contextlib.suppress(UserError), locked(lock, str(partial)):
            _remove_if_dead(partial)


def _remove_if_dead(partial: Path) -> None:
    """Delete what a process left unfinished, unless it lives. Only while holding the lock.

    The second check is for file systems without locks.
    """
    # .<name>.<process>.<random>.partial
    process = partial.name.split(".")[-3]
    if process.isdigit() and not _is_alive(int(process)):
        shutil.rmtree(partial, ignore_errors=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # An earlier process of this number, as in a restarted container.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class CachedSource(ExampleSource):
    """Other examples, each read and, if nothing crops, decoded only once. A key is an index."""

    def __init__(self, source: ExampleSource, labels: np.ndarray) -> None:
        self._source = source
        # On the CPU, which prepares images; a GPU has better use for its memory.
        with tf.device("CPU"):
            self._labels = tf.convert_to_tensor(labels)
        # Indices count all examples, even if `_source` becomes some of them.
        self._whole = self
        self.is_shuffled = source.is_shuffled
        self.interleaved = source.interleaved
        self.count = source.count
        self.mean_bytes = source.mean_bytes
        self.class_counts = source.class_counts
        self.is_multi_label = source.is_multi_label

    def keys(self, random: Random = None, options: PipelineOptions = DEFAULT_OPTIONS) -> Dataset:
        """Return the examples' indices, in the order of the source."""
        return self._source.indices(random, options)

    indices = keys

    def labels(self, keys: tf.Tensor) -> tf.Tensor:
        """Return the class ids of a batch of keys, int64 (n,). Not for multi-label images."""
        return tf.gather(self._labels, keys)

    def filename(self, key: tf.Tensor) -> tf.Tensor:
        """Return the file name of an example; all are read at the first call."""
        return tf.gather(self._whole._filenames, key)

    @cached_property
    def _filenames(self) -> tf.Tensor:
        with tf.init_scope():  # outside of the graph that asks first
            filenames = np.empty(self.count, object)
            pairs = (self._source.indices(), self._source.keys().map(self._source.filename))
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
        return decode(content, tf.io.extract_jpeg_shape(content), image_format, crop), label

    def for_worker(self, worker_slice: WorkerSlice) -> "CachedSource":
        """Return the examples in a worker's own shards, out of the cache of all."""
        part = copy.copy(self)
        part._source = self._source.for_worker(worker_slice)
        part.count = part._source.count
        return part

    def find_corruption(self) -> str | None:
        """Return one line that names what can't be read, or None if nothing is known."""
        return self._failure or self._source.find_corruption()


class MemoryCachedSource(CachedSource):
    """Examples cached in memory."""

    def __init__(self, source: ExampleSource, image_format: ImageFormat, has_pixels: bool) -> None:
        _check_memory(source.count * _content_bytes(source, image_format, has_pixels))
        contents = np.empty(source.count, object)
        if has_pixels:
            contents = np.empty((source.count, *image_format.shape), np.uint8)
        spec = source.label_spec
        labels = np.empty((source.count, *spec.shape), spec.dtype.as_numpy_dtype)
        for index, content, label in _read_all(source, image_format, has_pixels):
            contents[index], labels[index] = content, label
        with tf.device("CPU"):
            self._contents = tf.convert_to_tensor(contents)
        super().__init__(source, labels)

    def stored_bytes(self, key: tf.Tensor) -> tf.Tensor:
        """Return uint8 pixels, or the encoded image, of an example."""
        return tf.gather(self._contents, key)


class DiskCachedSource(CachedSource):
    """Examples cached on disk."""

    def __init__(self, source: ExampleSource, cache: DiskCache, has_pixels: bool) -> None:
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
    image_format: ImageFormat,
    kind: str,
    *,
    has_crop: bool = False,
    cache_dir: str | Path = "",
    fingerprint: str | None = None,
) -> ExampleSource:
    """Return the examples, cached.

    The first run on some data fills the cache, which takes about as long as an epoch; on disk it
    then stays.

    Args:
        source: The examples.
        image_format: Shape of the cached pixels.
        kind: none, memory or disk.
        has_crop: Whether a crop chooses what to decode; then the encoded images are cached.
        cache_dir: Folder of the caches on disk.
        fingerprint: Hash of the data; None if there is none.

    Raises:
        SettingsError: The cache is impossible or does not fit.
        DataError: An example can't be read, or the cache on disk is damaged.
    """
    has_pixels = not has_crop
    if kind == "none":
        return source
    if kind == "memory":
        return MemoryCachedSource(source, image_format, has_pixels)
    if fingerprint is None:
        raise SettingsError("cache disk needs data with a fingerprint; a generator has none")
    what = "x".join(map(str, image_format.shape)) if has_pixels else "encoded"
    folder = Path(cache_dir) / f"images-{fingerprint[:32]}-{what}"

    def make_rows() -> Iterator[tuple[int, bytes, Any]]:
        needed = source.count * _content_bytes(source, image_format, has_pixels)
        if missing := find_missing_space(folder.parent, needed):
            raise SettingsError(f"cache disk does not fit: {missing}")
        for index, content, label in _read_all(source, image_format, has_pixels):
            yield index, content.tobytes() if has_pixels else content, label

    cache = open_cache(folder, RowFormat(source.count, source.label_spec), make_rows)
    return DiskCachedSource(source, cache, has_pixels)


def _read_all(
    source: ExampleSource, image_format: ImageFormat, has_pixels: bool
) -> Iterator[tuple[int, Any, Any]]:
    """Yield (index, pixels or encoded bytes, label) of each example."""

    def prepare(index, key):
        if has_pixels:
            return index, *source.load(key, image_format)
        fields = parse_record(source.record(key), ("encoded", source.label_field))
        return index, fields["encoded"], source.label(fields)

    indexed = tf.data.Dataset.zip(source.indices(), source.keys())
    with explain_source_errors([source]):
        yield from indexed.map(prepare, available_cores()).prefetch(64).as_numpy_iterator()


def _content_bytes(source: ExampleSource, image_format: ImageFormat, has_pixels: bool) -> int:
    return int(np.prod(image_format.shape)) if has_pixels else source.mean_bytes


def _check_memory(needed: int) -> None:
    try:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return  # unknown on this system
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        available = min(available, int(_CONTAINER_LIMIT.read_text()))
    if needed > available:
        raise SettingsError(
            f"cache memory does not fit: {needed / 1e9:,.1f} GB are needed, there are "
            f"{available / 1e9:,.1f} GB; use cache disk or none"
        )
