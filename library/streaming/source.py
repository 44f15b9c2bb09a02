"""Examples in shards at a URL, which are downloaded while they are read."""

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from library.errors import UserError
from library.inputs.corruption import find_corrupt_record
from library.inputs.examples import (
    Dataset,
    ExampleSource,
    Random,
    ShardSource,
    SplitPart,
    without_autotune,
)
from library.streaming.cache import ShardCache, StreamedShards, find_streamed

# Indices to take from a dataset at once.
_MANY = 10_000


@dataclass(frozen=True)
class StreamedSource(ShardSource):
    """Examples in shards that are in the cache only while they are read, or come soon.

    Attributes:
        cache: Where the shards are while they are read.
        shards: All shards of the split.
        epochs: Number of epochs of the training; nothing is downloaded for a later one.
        is_preview: Whether to read only shards that are in the cache already.
        unread: Paths of shards whose keys are empty, because none of them is parsed.
    """

    is_streamed: ClassVar[bool] = True
    cache: ShardCache = field(kw_only=True)
    shards: StreamedShards = field(kw_only=True)
    epochs: float = math.inf
    is_preview: bool = False
    unread: frozenset[str] = frozenset()

    def keys(self, random: Random = None) -> Dataset:
        """Return the records, interleaved, of the shards in order or permuted by `random`."""
        order = [self.paths[each] for each in self._order(random)]
        following = self.shards.announced if random else order
        counts = dict(zip(self.paths, self.counts, strict=True))

        def read() -> Iterator[tuple[int, bytes, int]]:
            present = [each for each in order if each not in self.unread]
            known = None if self.is_preview else following
            with contextlib.closing(self.cache.read(self.shards, present, known)) as opened:
                for path in order:
                    if path in self.unread:
                        yield -1, b"", counts[path]
                    else:
                        for number, own in itertools.islice(opened, 1):
                            yield number, os.fsencode(own), 0

        numbers = tf.TensorSpec([], tf.int64)
        spec = (numbers, tf.TensorSpec([], tf.string), numbers)
        shards = without_autotune(Dataset.from_generator(read, output_signature=spec))
        # The same order as that of several parallel calls, which would also open shards ahead of
        # their turn: these would take space in the cache.
        return shards.interleave(
            tf.autograph.experimental.do_not_convert(self._open_streamed),
            cycle_length=self.interleaved,
        )

    def announce(self, epoch: int, random: Random) -> None:
        """Learn the order of the epoch that follows the one whose keys come next."""
        order = [self.paths[each] for each in self._order(random)]
        self.shards.announced = order if epoch < self.epochs else ()

    @property
    def failure(self) -> UserError | None:
        """Why shards can't be had, or None."""
        return self.cache.error

    def find_corruption(self) -> str | None:
        """Return one line about a shard that is damaged in the cache; the others were checked."""
        counts = zip(self.paths, self.counts, strict=True)
        present = {path: count for path, count in counts if Path(path).exists()}
        return find_corrupt_record(
            present, len(self.class_counts), self.is_multi_label, self.repair_hint
        )

    def for_rest(self, rest: Callable[[], Dataset]) -> "StreamedSource":
        """Return the same examples; shards of which none is parsed are not downloaded."""
        indices = np.concatenate([np.zeros(0, int), *rest().batch(_MANY).as_numpy_iterator()])
        shards = np.unique(np.searchsorted(self._begins(), indices, "right") - 1)
        read = {self.paths[each] for each in shards}
        return dataclasses.replace(self, unread=frozenset(self.paths) - read)

    def at_hand(self) -> "StreamedSource":
        """Return the examples in the shards that are in the cache when they are read."""
        return dataclasses.replace(self, is_preview=True)

    def _open_streamed(self, number: tf.Tensor, path: tf.Tensor, empty: tf.Tensor) -> Dataset:
        """Return a shard's records, or `empty` empty ones if the pass's number is negative."""

        def close(number: int, path: bytes) -> bytes:
            self.cache.close_shard(number, os.fsdecode(path))
            return b""

        def read_and_close(number: tf.Tensor, path: tf.Tensor) -> Dataset:
            ended = Dataset.from_tensors(number).map(
                lambda number: tf.ensure_shape(
                    tf.numpy_function(close, [number, path], tf.string), []
                )
            )
            return self._open(path).concatenate(ended.filter(lambda _: False))

        opened = Dataset.from_tensors((number, path)).repeat(tf.cast(number >= 0, tf.int64))
        records = opened.flat_map(tf.autograph.experimental.do_not_convert(read_and_close))
        return Dataset.from_tensors("").repeat(empty).concatenate(records)


def stream(source: ExampleSource, split: Any, epochs: float = math.inf) -> ExampleSource:
    """Return the same examples, streamed if their split is.

    Args:
        source: The examples.
        split: Their split.
        epochs: Number of epochs of the training.
    """
    found = find_streamed(split)
    if found is None:
        return source
    cache, shards = found
    cached = dict(zip(map(str, split.paths), shards.shards, strict=True))

    def convert(source: ExampleSource) -> StreamedSource:
        assert isinstance(source, ShardSource)
        fields = {
            each.name: getattr(source, each.name)
            for each in dataclasses.fields(source)
            if each.init
        }
        fields["paths"] = tuple(cached[each] for each in source.paths)
        fields["parts"] = tuple(
            SplitPart(fingerprint, convert(part)) for fingerprint, part in source.parts
        )
        return StreamedSource(**fields, cache=cache, shards=shards, epochs=epochs)

    return convert(source)
