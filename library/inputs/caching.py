"""Examples kept ready from one epoch to the next, in memory or on disk: `cache: memory|disk`.

What is kept comes before every random change. Where nothing crops, that is pixels at the network's
size; where a crop chooses what to decode, it is the encoded image, which spares options only. The
order of an epoch is the same with and without a cache.
"""

import contextlib
import hashlib
import io
import os
import shutil
import weakref
from functools import cached_property
from pathlib import Path

import google_crc32c
import numpy as np
import tensorflow as tf

from library.dataset.records import parse_record
from library.dataset.worker_pool import available_cores
from library.errors import DataError, SettingsError
from library.files import PARTIAL, locked, new_folder, write_file
from library.inputs.corruption import explain_source_errors
from library.inputs.decoding import decode
from library.inputs.examples import DEFAULT_OPTIONS, ExampleSource

_BLOBS, _INDEX = "blobs", "index"
# How much memory a container may use.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
_ROW = [("offset", "<i8"), ("size", "<i8"), ("crc", "<u4")]


class CachedSource(ExampleSource):
    """Other examples, each read (and, where nothing crops, decoded) once."""

    def __init__(self, examples, image_format, store, whole=None):
        # Numbers are those of all examples, also where these are some of them only.
        self._whole = whole or self
        self._examples = examples
        self._format = image_format
        self._store = store
        self.is_shuffled = examples.is_shuffled
        self.interleaved = examples.interleaved
        self.mean_bytes = examples.mean_bytes
        self.class_counts = examples.class_counts
        self.count = examples.count
        self.is_multi_label = examples.is_multi_label

    def keys(self, random=None, options=DEFAULT_OPTIONS):
        """Return the examples' numbers, in the very order of the examples that are cached."""
        return self._examples.indices(random, options)

    def labels(self, keys):
        """Return int64 (n,) for a batch of keys."""
        return tf.gather(self._store.labels, keys)

    def filename(self, key):
        """Return the file name of an example: these are not cached, but read on first demand."""
        return tf.gather(self._whole._names, key)

    @cached_property
    def _names(self):
        examples = self._examples
        with tf.init_scope():  # Outside of the graph that first wants them.
            numbers, keys = examples.indices(), examples.keys().map(examples.filename)
            names = np.empty(self.count, object)
            for number, name in tf.data.Dataset.zip(numbers, keys).as_numpy_iterator():
                names[number] = name
            return tf.convert_to_tensor(names, tf.string)

    def load(self, key, image_format, crop=None):
        """Give (uint8 pixels, label)."""
        content = self._store.content(key)
        label = tf.gather(self._store.labels, key)
        if content.dtype == tf.uint8:
            return tf.reshape(content, image_format.shape), label
        return decode(content, tf.io.extract_jpeg_shape(content), image_format, crop), label

    def stored_bytes(self, key):
        """Return what is kept of an example."""
        return self._store.content(key)

    def for_worker(self, part):
        """Return those of a worker's own shards; kept are all, found by the same numbers."""
        return CachedSource(self._examples.for_worker(part), self._format, self._store, self._whole)

    def find_corruption(self):
        """Return a line about what could not be read, None if all could."""
        return self._store.failure or self._examples.find_corruption()


class MemoryStore:
    """Contents and labels as tensors."""

    failure = None

    def __init__(self, examples, image_format, keeps_pixels):
        if keeps_pixels:
            _check_memory(examples.count * np.prod(image_format.shape))
            contents = np.empty((examples.count, *image_format.shape), np.uint8)
        else:
            _check_memory(examples.count * examples.mean_bytes)
            contents = np.empty(examples.count, object)
        spec = examples.label_spec
        labels = np.empty((examples.count, *spec.shape), spec.dtype.as_numpy_dtype)
        for number, content, label in _walk(examples, image_format, keeps_pixels):
            contents[number], labels[number] = content, label
        # Where images are prepared; a GPU has better use for its memory.
        with tf.device("CPU"):
            self._contents = tf.convert_to_tensor(contents)
            self.labels = tf.convert_to_tensor(labels)

    def content(self, number):
        """Return uint8 pixels, or the encoded image, of an example."""
        return tf.gather(self._contents, number)


class DiskStore:
    """Contents in one file, found by number: complete or absent."""

    def __init__(self, folder, keeps_pixels):
        self._keeps_pixels = keeps_pixels
        self.failure = None
        self._damaged = f"the cache {folder} is damaged: delete it"
        try:
            self._rows = _read_index(folder / _INDEX)
            self._file = (folder / _BLOBS).open("rb")
        except (OSError, ValueError):
            raise DataError(self._damaged) from None
        weakref.finalize(self, self._file.close)
        if os.fstat(self._file.fileno()).st_size != self._rows["size"].sum():
            raise DataError(self._damaged)
        self.labels = tf.constant(self._rows["label"])

    def content(self, number):
        """Return uint8 pixels, flat, or the encoded image, of an example."""
        content = tf.ensure_shape(tf.numpy_function(self._read, [number], tf.string), [])
        return tf.io.decode_raw(content, tf.uint8) if self._keeps_pixels else content

    def _read(self, number):
        row = self._rows[number]
        content = os.pread(self._file.fileno(), int(row["size"]), int(row["offset"]))
        if google_crc32c.value(content) != row["crc"]:
            self.failure = self._damaged
            raise DataError(self.failure)
        return content


def cache_examples(examples, image_format, kind, *, crops=False, cache_dir=None, fingerprint=None):
    """Return the examples, cached: `kind` is none, memory or disk.

    The first run on some data fills the cache, which takes about as long as an epoch; on disk it
    then stays. Raises SettingsError, DataError.
    """
    if kind == "none":
        return examples
    if kind == "memory":
        return CachedSource(examples, image_format, MemoryStore(examples, image_format, not crops))
    if fingerprint is None:
        raise SettingsError("cache disk wants data that can be told apart: a generator's can't")
    what = "encoded" if crops else "x".join(map(str, image_format.shape))
    folder = Path(cache_dir) / f"images-{fingerprint[:32]}-{what}"
    if not folder.exists():
        with locked(folder.with_name("images.lock"), "the image cache", wait=True):
            _remove_dead_partials(folder.parent)
            # Whoever had the lock may just have filled it.
            if not folder.exists():
                _write_store(examples, image_format, folder, not crops)
    return CachedSource(examples, image_format, DiskStore(folder, not crops))


def _remove_dead_partials(folder):
    """Delete what killed processes left half-written; what a live one writes stays.

    For whoever has the lock: the processes of other machines are none here.
    """
    for partial in Path(folder).glob(f".images-*{PARTIAL}"):
        remove_if_dead(partial)


def remove_if_dead(partial):
    """Delete what a process left half-written, unless that lives. For whoever has its lock."""
    # .<name>.<process>.<random>.partial
    process = partial.name.split(".")[-3]
    if process.isdigit() and not _is_alive(int(process)):
        shutil.rmtree(partial, ignore_errors=True)


def _is_alive(process):
    if process == os.getpid():
        return False  # An earlier one of this number, as in a container that was started again.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_store(examples, image_format, folder, keeps_pixels):
    spec = examples.label_spec
    label = ("label", spec.dtype.as_numpy_dtype, tuple(spec.shape))
    rows = np.zeros(examples.count, [*_ROW, label])
    offset = 0
    with new_folder(folder) as partial:
        needed = examples.count * (
            np.prod(image_format.shape) if keeps_pixels else examples.mean_bytes
        )
        _check_disk(partial, needed)
        with (partial / _BLOBS).open("wb") as file:
            for number, content, label in _walk(examples, image_format, keeps_pixels):
                content = content.tobytes() if keeps_pixels else content
                rows[number] = (offset, len(content), google_crc32c.value(content), label)
                offset += file.write(content)
        _write_index(partial / _INDEX, rows)


def _write_index(path, rows):
    """Write an array with its SHA-256 in front: each label must be what it was."""
    file = io.BytesIO()
    np.save(file, rows)
    write_file(path, hashlib.sha256(file.getvalue()).digest() + file.getvalue())


def _read_index(path):
    """Return what `_write_index` wrote. Raises OSError, ValueError."""
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("it is not what was written")
    return np.load(io.BytesIO(content))


def _walk(examples, image_format, keeps_pixels):
    """Yield (number, pixels or encoded bytes, label) of each example."""

    def prepare(number, key):
        if keeps_pixels:
            return number, *examples.load(key, image_format)
        fields = parse_record(examples.record(key), ("encoded", examples.label_field))
        return number, fields["encoded"], examples.label(fields)

    numbered = tf.data.Dataset.zip(examples.indices(), examples.keys())
    with explain_source_errors([examples]):
        yield from numbered.map(prepare, available_cores()).prefetch(64).as_numpy_iterator()


def _check_memory(needed):
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return  # Not told by this system.
    with contextlib.suppress(OSError, ValueError):  # No container, or "max".
        there = min(there, int(_CONTAINER_LIMIT.read_text()))
    if needed > there:
        raise SettingsError(
            f"cache memory would need {needed / 1e9:,.1f} GB, and there are {there / 1e9:,.1f}: "
            "cache disk, or none"
        )


def _check_disk(folder, needed):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SettingsError(
            f"cache disk would need {needed / 1e9:,.1f} GB in {folder.parent}, and "
            f"{free / 1e9:,.1f} are free"
        )
