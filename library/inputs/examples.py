"""Where an epoch's examples come from, and in which order: shards, files, or a generator.

Each kind gives *keys* in the order of an epoch (something small, or the encoded record itself) and
turns a key into an image. Between the two everything can be shuffled, skipped and divided among
workers without decoding a pixel.
"""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from library.dataset.records import parse_labels, parse_record, serialize
from library.dataset.unconverted import GeneratedSplit, UnconvertedSplit
from library.errors import DataError, SettingsError, UserError
from library.inputs.batching import without_autotune
from library.inputs.corruption import find_corrupt_record
from library.inputs.decoding import decode


@dataclass(frozen=True)
class PipelineOptions:
    """How much is read, decoded and kept ready at once. Changes speed; never what is read.

    But for `deterministic`: without it, the image that is prepared first comes first in training,
    and no epoch can be repeated.
    """

    num_parallel_reads: int = 4
    num_parallel_calls: int | None = None
    prefetch_examples: int = 0
    prefetch_batches: int = 4
    # Batches kept ready on the device of this name: "/GPU:0".
    prefetch_to_device: int = 0
    device: str | None = None
    deterministic: bool = True


DEFAULT_OPTIONS = PipelineOptions()


class ExampleSource:
    """What shards, files and generators share: an example is a serialized record."""

    # How many shards are read in turns, where there are any.
    interleaved = None
    # Whether `keys` are in perfectly random order already, so that no buffer need shuffle them.
    is_shuffled = False
    # Whether an image may have several classes, or none.
    is_multi_label = False

    @property
    def label_spec(self):
        """What an image's label is: a class id, or where there are several, 1 for each, else 0."""
        if self.is_multi_label:
            return tf.TensorSpec([len(self.class_counts)], tf.float32)
        return tf.TensorSpec([], tf.int64)

    @property
    def label_field(self):
        """The field of a record that `label` wants."""
        return "labels" if self.is_multi_label else "label"

    def label(self, fields):
        """Return an image's label from the fields of its record."""
        if not self.is_multi_label:
            return fields["label"]
        one_hot = tf.one_hot(fields["labels"], len(self.class_counts))
        return tf.minimum(tf.reduce_sum(one_hot, 0), 1.0)

    def load(self, key, image_format, crop=None):
        """Give (uint8 pixels, label). `crop` gives a window from an image's shape."""
        fields = parse_record(self.record(key), ("encoded", "height", "width", self.label_field))
        # As recorded: looking into the encoded image would take longer.
        shape = tf.cast(tf.stack([fields["height"], fields["width"], 3]), tf.int32)
        return decode(fields["encoded"], shape, image_format, crop), self.label(fields)

    def record(self, key):
        """Return the serialized record for a key."""
        return key

    def stored_bytes(self, key):
        """Return what is stored of an example, from which `image` makes pixels."""
        return self.record(key)

    def filename(self, key):
        """Return the file name of an example as it was converted, a scalar string."""
        return parse_record(self.record(key), ("filename",))["filename"]

    def labels(self, keys):
        """Return int64 (n,) for a batch of keys."""
        return parse_labels(keys)

    def for_worker(self, part):
        """Return the examples that a worker reads who reads its own shards only."""
        raise SettingsError(
            f"shard_by_file needs converted shards, not these {type(self).__name__}"
        )


@dataclass(frozen=True)
class ShardSource(ExampleSource):
    """Examples in converted shards: those that the manifest lists.

    `counts` are examples per shard; `interleaved`, how many shards are read in turns, is part of
    the order.
    """

    paths: tuple
    counts: tuple
    class_counts: tuple
    mean_bytes: int = 100_000
    interleaved: int = 16
    is_multi_label: bool = False
    # The number of each shard's first example, where these are not all shards.
    firsts: tuple | None = None
    # What to do about a damaged one.
    repair_hint: str = "convert again"

    @property
    def count(self):
        """How many examples there are."""
        return sum(self.counts)

    def keys(self, random=None, options=DEFAULT_OPTIONS):
        """Return the records: shards permuted by `random`, a numpy Generator, or all in order."""
        return self.interleave(random, options, np.array(self.paths), tf.data.TFRecordDataset)

    def indices(self, random=None, options=DEFAULT_OPTIONS):
        """Return each example's number, counted shard by shard, in the order of `keys`."""
        begins = self._begins()
        if len(self.paths) > self.interleaved:
            columns = (begins, begins + self.counts)
            return self.interleave(random, options, columns, tf.data.Dataset.range)
        # All shards are open at once: first the first example of each, then the second, …
        order = self._order(random)
        counts = np.array(self.counts)[order]
        turns = np.concatenate([np.arange(each) for each in counts])
        numbers = np.repeat(begins[order], counts) + turns
        in_turns = numbers[np.argsort(turns, kind="stable")].astype(np.int64)
        return without_autotune(tf.data.Dataset.from_tensor_slices(in_turns))

    def interleave(self, random, options, columns, open_shard):
        """Interleave what `open_shard` gives for each row of `columns`, one row for each shard."""
        order = self._order(random)
        picked = tf.nest.map_structure(lambda column: column[order], columns)
        shards = without_autotune(tf.data.Dataset.from_tensor_slices(picked))
        return shards.interleave(
            open_shard,
            cycle_length=self.interleaved,
            num_parallel_calls=min(options.num_parallel_reads, self.interleaved),
            # In a fixed order, whichever shard answers first, and also where images come as they
            # are ready: workers divide the examples by their position.
            deterministic=True,
        )

    def _order(self, random):
        return random.permutation(len(self.paths)) if random else np.arange(len(self.paths))

    def for_worker(self, part):
        """Return the shards that a worker reads who reads its own only."""
        if part.count > len(self.paths):
            raise SettingsError(
                f"shard_by_file needs at least one shard for each of the {part.count} workers: "
                f"there are {len(self.paths)}; convert with a larger --num_shards"
            )
        mine = slice(part.index, None, part.count)
        firsts = tuple(self._begins()[mine].tolist())
        return replace(self, paths=self.paths[mine], counts=self.counts[mine], firsts=firsts)

    def _begins(self):
        if self.firsts is None:
            return np.cumsum(self.counts) - self.counts
        return np.array(self.firsts)

    def find_corruption(self):
        """Return a line that names the first damaged record, None if all are whole."""
        return find_corrupt_record(self.paths, self.repair_hint)


class FileSource(ExampleSource):
    """Examples in files that were never converted: a library.dataset.unconverted split."""

    is_shuffled = True

    def __init__(self, split):
        self._split = split
        self._labels = None if split.is_multi_label else tf.constant(split.labels)
        self._failure = None
        self.is_multi_label = split.is_multi_label
        self.class_counts = split.class_counts
        self.count = split.examples
        self.mean_bytes = max(1, split.bytes // split.examples)

    def keys(self, random=None, options=DEFAULT_OPTIONS):
        """Return the numbers of the files, permuted by `random`, or in order."""
        order = random.permutation(self.count) if random else np.arange(self.count)
        return without_autotune(tf.data.Dataset.from_tensor_slices(order.astype(np.int64)))

    indices = keys

    def record(self, key):
        """Return the record of a file, made as conversion would make it."""
        return tf.ensure_shape(tf.numpy_function(self._read, [key], tf.string), [])

    def filename(self, key):
        """Return the file's name, without options the file."""
        return tf.ensure_shape(tf.numpy_function(self._split.filename, [key], tf.string), [])

    def labels(self, keys):
        """Return int64 (n,) for a batch of keys, where images have one class each."""
        return tf.gather(self._labels, keys)

    def find_corruption(self):
        """Return the line about the file that could not be read, None if all could."""
        return self._failure

    def _read(self, number):
        try:
            return serialize(self._split.read(number))
        except UserError as error:
            # TensorFlow would wrap the text in pages of its own.
            self._failure = str(error)
            raise


class GeneratorSource(ExampleSource):
    """Examples from a user's generator: a library.dataset.unconverted.GeneratedSplit."""

    def __init__(self, split):
        self._split = split
        self._failure = None
        self.class_counts = split.class_counts
        self.count = split.examples
        self.mean_bytes = split.mean_bytes

    def keys(self, random=None, options=DEFAULT_OPTIONS):
        """Return the records in the generator's own order."""
        spec = tf.TensorSpec([], tf.string)
        return without_autotune(
            tf.data.Dataset.from_generator(self._records, output_signature=spec)
        )

    def indices(self, random=None, options=DEFAULT_OPTIONS):
        """Return each example's number, in the order of `keys`."""
        return without_autotune(tf.data.Dataset.range(self.count))

    def find_corruption(self):
        """Return the line about the image that could not be used, None if all could."""
        return self._failure

    def _records(self):
        try:
            for record in self._split.records():
                yield serialize(record)
        except DataError as error:
            self._failure = str(error)
            raise


def worker_examples(examples, part):
    """Return the examples that a worker reads: all, or those of its own shards."""
    return examples.for_worker(part) if part.has_own_shards else examples


def count_batches(examples, example_count, batch_size, part):
    """Return the number of batches of an epoch, the same for every worker."""
    if part.has_own_shards:
        # The worker with the most examples; the others get empty batches at the end.
        each = [examples.for_worker(other).count for other in part.siblings()]
        return -(-max(each) // part.size(batch_size))
    return -(-example_count // batch_size)


def make_source(split, interleaved=16):
    """Return the examples of a split, converted (a Manifest) or not."""
    if isinstance(split, UnconvertedSplit):
        return FileSource(split)
    if isinstance(split, GeneratedSplit):
        return GeneratorSource(split)
    return ShardSource(
        paths=tuple(str(path) for path in split.paths),
        counts=tuple(shard.examples for shard in split.shards),
        class_counts=split.class_counts,
        mean_bytes=max(1, sum(shard.bytes for shard in split.shards) // split.examples),
        interleaved=interleaved,
        is_multi_label=split.is_multi_label,
        repair_hint=split.repair_hint,
    )
