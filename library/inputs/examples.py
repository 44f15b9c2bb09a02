"""Where the examples of a split come from, and in which order: shards, files or a generator.

A source returns *keys* in the order of an epoch (an index, or the serialized record itself) and
loads the image that belongs to a key. In between, keys are shuffled, skipped and divided among
workers without decoding a pixel.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from library.dataset.foreign_splits import ForeignSplit, RecordReader
from library.dataset.manifest import Manifest
from library.dataset.record_fields import RecordFields
from library.dataset.records import check_frames, parse_labels, parse_record, serialize
from library.dataset.unconverted import GeneratedSplit, UnconvertedSplit
from library.errors import DataError, SettingsError, UserError
from library.inputs.corruption import find_corrupt_record, find_unusable_record
from library.inputs.decoding import Crop, ImageFormat, decode, read_shape
from library.inputs.worker_slice import WorkerSlice

Dataset: TypeAlias = tf.data.Dataset
# Shuffles an epoch; None: in order.
Random = np.random.Generator | None
# Indices to take from a dataset at once.
_MANY = 10_000


@dataclass(frozen=True)
class PipelineOptions:
    """How much is decoded and prefetched in parallel. Affects speed, never the examples.

    The exception is `deterministic`: if False, images are trained on in the order in which they
    become ready, and no epoch can be repeated.
    """

    num_parallel_calls: int | None = None
    prefetch_examples: int = 0
    prefetch_batches: int = 4
    # Number of batches to prefetch to `device`, for example "/GPU:0"; no effect without one.
    prefetch_to_device: int = 1
    device: str | None = None
    deterministic: bool = True


DEFAULT_OPTIONS = PipelineOptions()


def without_autotune(dataset: Dataset) -> Dataset:
    """Turn autotuning off for a dataset and everything made from it.

    Deleting an iterator can block until its autotune thread wakes up, up to a minute later.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _call(function: Callable[[Any], bytes], argument: tf.Tensor) -> tf.Tensor:
    """Return the bytes that a Python function returns for a scalar, as a scalar tensor."""
    return tf.ensure_shape(tf.numpy_function(function, [argument], tf.string), [])


class SplitPart(NamedTuple):
    """Examples whose images and features are cached together, and the hash of their data."""

    fingerprint: str
    source: "ExampleSource"


class ExampleSource(ABC):
    """The examples of a split. Here, an example is a serialized record, unless overridden."""

    # Number of examples.
    count: int
    class_counts: tuple[int, ...]
    # Mean size of what is stored of an example.
    mean_bytes: int
    # Whether an image may have any number of classes, rather than exactly one.
    is_multi_label: bool = False
    # Whether `keys` are uniformly shuffled already, so that no shuffle buffer is needed.
    is_shuffled: bool = False
    # Whether reading may fail for a while, as from a store that does not answer.
    is_streamed: ClassVar[bool] = False
    # Number of shards that are interleaved, if there are shards.
    interleaved: int | None = None
    # Of a split that is made of several, such as the folds that train: these, in the order of the
    # examples' indices.
    parts: tuple[SplitPart, ...] = ()
    # Why the last example could not be read.
    _failure: str | None = None

    @abstractmethod
    def keys(self, random: Random = None) -> Dataset:
        """Return the keys of all examples, shuffled if `random` is given, else in order."""

    @abstractmethod
    def indices(self, random: Random = None) -> Dataset:
        """Return the index of each example, int64 from 0, in the order of `keys`."""

    @property
    def label_spec(self) -> tf.TensorSpec:
        """Spec of one label: an int64 class id or, if multi-label, a float32 0 or 1 per class."""
        if self.is_multi_label:
            return tf.TensorSpec([len(self.class_counts)], tf.float32)
        return tf.TensorSpec([], tf.int64)

    def parse(self, key: tf.Tensor, *names: str) -> tuple[tf.Tensor, ...]:
        """Return the fields of those names of an example's record, then its label."""
        label_name = "labels" if self.is_multi_label else "label"
        *fields, label = parse_record(self.record(key), (*names, label_name)).values()
        # A label that is no class's is an error; a one-hot vector would be zero.
        label = tf.gather(np.arange(len(self.class_counts)), label)
        if self.is_multi_label:
            label = tf.minimum(tf.reduce_sum(tf.one_hot(label, len(self.class_counts)), 0), 1.0)
        return *fields, label

    def load(
        self, key: tf.Tensor, image_format: ImageFormat, crop: Crop | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode an example.

        Args:
            key: One of `keys`.
            image_format: Shape of the pixels.
            crop: Chooses the window to decode; None for the whole image.

        Returns:
            (uint8 pixels, label).
        """
        encoded, height, width, label = self.parse(key, "encoded", "height", "width")
        return decode(encoded, read_shape(encoded, (height, width)), image_format, crop), label

    def record(self, key: tf.Tensor) -> tf.Tensor:
        """Return the serialized record for a key."""
        return key

    def stored_bytes(self, key: tf.Tensor) -> tf.Tensor:
        """Return what is stored of an example, the input of decoding."""
        return self.record(key)

    def filename(self, key: tf.Tensor) -> tf.Tensor:
        """Return the file name that an example was converted from, a scalar string."""
        return parse_record(self.record(key), ("filename",))["filename"]

    @tf.autograph.experimental.do_not_convert
    def name(self, position: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        """Return the file name of an example or, without one, what conversion calls it.

        Args:
            position: Its position among `keys()`, the examples in order.
            key: Its key.
        """
        filename = self.filename(key)
        return tf.where(filename == "", self.default_name(position), filename)

    def default_name(self, position: tf.Tensor) -> tf.Tensor:
        """Return the name of an example without a file name, by its position in order."""
        return tf.constant("")

    def labels(self, keys: tf.Tensor) -> tf.Tensor:
        """Return the class ids of a batch of keys, int64 (n,). Not for multi-label images."""
        return parse_labels(keys)

    def for_worker(self, worker_slice: WorkerSlice) -> "ExampleSource":
        """Return the examples in a worker's own shards. Raises SettingsError."""
        raise SettingsError("shard_by_file needs converted shards (convert_dataset.py)")

    @property
    def failure(self) -> UserError | None:
        """Why no more examples can be had, although those here may be fine; None if they can."""
        return None

    def announce(self, epoch: int, random: Random) -> None:  # noqa: B027, for streams only
        """Learn the order of the epoch after the one whose keys are made next: `epoch`, from 0."""

    def for_rest(self, rest: Callable[[], Dataset]) -> "ExampleSource":
        """Return the same examples, of which only some will be parsed.

        The keys of the others may be empty.

        Args:
            rest: Returns the indices of the examples that will.
        """
        return self

    def at_hand(self) -> "ExampleSource":
        """Return examples that can be read at once, if these can't."""
        return self

    def find_corruption(self) -> str | None:
        """Return one line that names what can't be read, or None if nothing is known."""
        return self._failure


@dataclass(frozen=True)
class ShardSource(ExampleSource):
    """Examples in converted shards, those that the manifest lists.

    `counts` are the examples per shard. `interleaved`, the number of shards read in turn, is part
    of the order; how many of these are read ahead, `parallel_reads`, is not.
    """

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    class_counts: tuple[int, ...]
    mean_bytes: int = 100_000
    interleaved: int = 16
    parallel_reads: int = 4
    is_multi_label: bool = False
    # Index of each shard's first example; None if these are all shards.
    firsts: tuple[int, ...] | None = None
    # What to do about a corrupt shard.
    repair_hint: str = "convert again"
    parts: tuple[SplitPart, ...] = field(default=(), repr=False, compare=False)
    count: int = field(init=False)
    _checked: set[bytes] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", sum(self.counts))

    def keys(self, random: Random = None) -> Dataset:
        """Return the records, interleaved, of the shards in order or permuted by `random`."""
        return self.interleave(random, np.array(self.paths), self._open)

    def indices(self, random: Random = None) -> Dataset:
        """Return each example's index, counted shard by shard, in the order of `keys`."""
        begins = self._begins()
        if len(self.paths) > self.interleaved:
            columns = (begins, begins + self.counts)
            return self.interleave(random, columns, Dataset.range)
        # All shards are open at once: first the first example of each, then the second, …
        order = self._order(random)
        counts = np.array(self.counts)[order]
        turns = np.concatenate([np.arange(each) for each in counts])
        indices = np.repeat(begins[order], counts) + turns
        interleaved = indices[np.argsort(turns, kind="stable")].astype(np.int64)
        return without_autotune(Dataset.from_tensor_slices(interleaved))

    def interleave(
        self, random: Random, columns: Any, open_shard: Callable[..., Dataset]
    ) -> Dataset:
        """Interleave one dataset per shard.

        Args:
            random: Permutes the shards; None leaves them in order.
            columns: An array, or a tuple of arrays, with one element per shard.
            open_shard: Makes the dataset of a shard from its elements of `columns`.

        Returns:
            The elements of these datasets in turn, in an order that does not depend on timing.
        """
        order = self._order(random)
        permuted = tf.nest.map_structure(lambda column: column[order], columns)
        shards = without_autotune(Dataset.from_tensor_slices(permuted))
        return shards.interleave(
            tf.autograph.experimental.do_not_convert(open_shard),
            cycle_length=self.interleaved,
            num_parallel_calls=min(self.parallel_reads, self.interleaved),
            # Always, even if images are taken as they become ready: workers divide the examples
            # by their position.
            deterministic=True,
        )

    def for_worker(self, worker_slice: WorkerSlice) -> "ShardSource":
        """Return the examples in a worker's own shards. Raises SettingsError."""
        if worker_slice.count > len(self.paths):
            raise SettingsError(
                f"shard_by_file needs at least one shard for each of the {worker_slice.count} "
                f"workers; there are {len(self.paths)}: convert with a larger --num_shards"
            )
        own = slice(worker_slice.index, None, worker_slice.count)
        firsts = tuple(self._begins()[own].tolist())
        return replace(self, paths=self.paths[own], counts=self.counts[own], firsts=firsts)

    def find_corruption(self) -> str | None:
        """Return one line that names the first corrupt record, or None if there is none."""
        counts = dict(zip(self.paths, self.counts, strict=True))
        return find_corrupt_record(
            counts, len(self.class_counts), self.is_multi_label, self.repair_hint
        )

    def _open(self, path: tf.Tensor) -> Dataset:
        return tf.data.TFRecordDataset(_call(self._check, path))

    def _check(self, path: bytes) -> bytes:
        """Check a shard's frames before TensorFlow opens it for the first time."""
        if path not in self._checked:
            name = path.decode("utf-8", "surrogateescape")
            check_frames(name, self.counts[self.paths.index(name)])
            self._checked.add(path)
        return path

    def _order(self, random: Random) -> np.ndarray:
        return random.permutation(len(self.paths)) if random else np.arange(len(self.paths))

    def _begins(self) -> np.ndarray:
        if self.firsts is None:
            return np.cumsum(self.counts) - self.counts
        return np.array(self.firsts)


@dataclass(frozen=True)
class ForeignShardSource(ShardSource):
    """Examples in TFRecord files of other programs; a key is a record as it is in the file."""

    reader: RecordReader = field(default_factory=lambda: RecordReader(RecordFields(), ()))
    # {path: its compression}, as TFRecordDataset calls it.
    compressions: Mapping[str, str] = field(default_factory=dict)

    def record(self, key: tf.Tensor) -> tf.Tensor:
        """Return the record that conversion would make."""
        return _call(lambda content: serialize(self.reader.read(content)), key)

    def filename(self, key: tf.Tensor) -> tf.Tensor:
        """Return the file name in a record without converting its image."""
        return _call(self.reader.filename, key)

    def default_name(self, position: tf.Tensor) -> tf.Tensor:
        """Return <file>/<number of the record>, as conversion names records without a name."""
        begins = self._begins()
        with tf.init_scope():  # outside of the graph of a dataset
            indices = np.concatenate([*self.indices().batch(_MANY).as_numpy_iterator()])
        shards = np.searchsorted(begins, indices, "right") - 1
        numbers = tf.strings.as_string(tf.gather(indices - begins[shards], position))
        files = [os.fsencode(Path(each).name) for each in self.paths]
        return tf.strings.join([tf.gather(files, tf.gather(shards, position)), "/", numbers])

    def labels(self, keys: tf.Tensor) -> tf.Tensor:
        """Return the class ids of a batch of keys, int64 (n,). Not for multi-label images."""
        return tf.ensure_shape(tf.numpy_function(self.reader.labels, [keys], tf.int64), [None])

    def find_corruption(self) -> str | None:
        """Return one line that names the first corrupt record, or None if there is none."""
        return find_unusable_record(self.paths, self.reader, self.repair_hint)

    def _open(self, path: tf.Tensor) -> Dataset:
        def find(path: bytes) -> bytes:
            return self.compressions[path.decode("utf-8", "surrogateescape")].encode()

        # The frames of a compressed file show only when it is read.
        checked = _call(lambda path: path if find(path) else self._check(path), path)
        compression = _call(find, path)
        return tf.data.TFRecordDataset(checked, compression)


class FileSource(ExampleSource):
    """Examples in files that were not converted; a key is the index of a file."""

    is_shuffled = True

    def __init__(self, split: UnconvertedSplit) -> None:
        self._split = split
        self._labels = None if split.is_multi_label else tf.constant(split.labels)
        self.is_multi_label = split.is_multi_label
        self.count = split.examples
        self.class_counts = split.class_counts
        self.mean_bytes = split.mean_bytes

    def keys(self, random: Random = None) -> Dataset:
        """Return the indices of the files, permuted by `random` or in order."""
        order = random.permutation(self.count) if random else np.arange(self.count)
        return without_autotune(Dataset.from_tensor_slices(order.astype(np.int64)))

    indices = keys

    def record(self, key: tf.Tensor) -> tf.Tensor:
        """Return the record of a file, the one that conversion would make."""
        return _call(self._read, key)

    def filename(self, key: tf.Tensor) -> tf.Tensor:
        """Return the file's name without reading the file."""
        return _call(self._split.filename, key)

    def labels(self, keys: tf.Tensor) -> tf.Tensor:
        """Return the class ids of a batch of keys, int64 (n,). Not for multi-label images."""
        return tf.gather(self._labels, keys)

    def _read(self, index: int) -> bytes:
        try:
            return serialize(self._split.read(index))
        except UserError as error:
            # TensorFlow would bury the text in a long message of its own.
            self._failure = str(error)
            raise


class GeneratorSource(ExampleSource):
    """Examples from a generator that the user wrote; a key is a record."""

    def __init__(self, split: GeneratedSplit) -> None:
        self._split = split
        self.count = split.examples
        self.class_counts = split.class_counts
        self.mean_bytes = split.mean_bytes

    def keys(self, random: Random = None) -> Dataset:
        """Return the records in the generator's own order."""
        spec = tf.TensorSpec([], tf.string)
        return without_autotune(Dataset.from_generator(self._records, output_signature=spec))

    def indices(self, random: Random = None) -> Dataset:
        """Return the index of each example, in the order of `keys`."""
        return without_autotune(Dataset.range(self.count))

    def _records(self) -> Iterator[bytes]:
        try:
            for record in self._split.records():
                yield serialize(record)
        except DataError as error:
            self._failure = str(error)
            raise


# A split of the data, converted or not.
Split = Manifest | UnconvertedSplit | GeneratedSplit


def make_source(
    split: Split,
    interleaved: int = ShardSource.interleaved,
    parallel_reads: int = ShardSource.parallel_reads,
) -> ExampleSource:
    """Return the examples of a split.

    Args:
        split: The split, converted or not.
        interleaved: Number of shards to read in turn.
        parallel_reads: Number of shards to read ahead at the same time.
    """
    if isinstance(split, UnconvertedSplit):
        return FileSource(split)
    if isinstance(split, GeneratedSplit):
        return GeneratorSource(split)
    kind: type[ShardSource] = ShardSource
    own: dict[str, Any] = {}
    if isinstance(split, ForeignSplit):
        kind = ForeignShardSource
        compressions = zip(map(str, split.paths), split.compressions, strict=True)
        own = {"reader": split.reader, "compressions": dict(compressions)}
    parts = [
        SplitPart(each.fingerprint, make_source(each, interleaved, parallel_reads))
        for each in getattr(split, "parts", ())
    ]
    return kind(
        **own,
        parts=tuple(parts),
        paths=tuple(str(path) for path in split.paths),
        counts=tuple(shard.examples for shard in split.shards),
        class_counts=split.class_counts,
        mean_bytes=max(1, sum(shard.bytes for shard in split.shards) // split.examples),
        interleaved=interleaved,
        parallel_reads=parallel_reads,
        is_multi_label=split.is_multi_label,
        repair_hint=split.repair_hint,
    )
