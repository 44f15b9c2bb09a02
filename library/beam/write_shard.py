"""One element of the pipeline: a list of files → a shard and a note about it, as a worker does it.

A shard has a name of its own for each attempt, and its note comes last: so attempts that fail, or
that a runner makes twice, leave nothing that could be taken for a shard.
"""

import json
import pickle
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import apache_beam as beam

from library.beam.shared_folder import SharedFolder
from library.dataset.conversion import make_pool
from library.dataset.encode_record import Task
from library.dataset.options import ConversionOptions
from library.dataset.shards import FinishedShard, ShardWriter
from library.dataset.worker_pool import WorkerPool

SHARD, NOTE, LIST = ".tfrecord", ".json", ".files"
# Between two looks whether the conversion has ended meanwhile.
_SECONDS_BETWEEN_LOOKS = 2.0


def list_name(number: int) -> str:
    """Return the name of the list of a shard's files."""
    return f"{number:05d}{LIST}"


class WriteShard(beam.DoFn):
    """Writes the shard of each element: (its number, position of its first file in the index)."""

    def __init__(
        self, folder: SharedFolder, options: ConversionOptions, most_rejected: int
    ) -> None:
        """Take what all shards share.

        Args:
            folder: Where the lists are and the shards go.
            options: How to convert.
            most_rejected: After more unusable files than this, the conversion fails anyway.
        """
        self._folder = folder
        self._options = options
        self._most_rejected = most_rejected
        self._workers: WorkerPool | None = None

    def setup(self) -> None:
        """Start the process that decodes: an image may crash it, or take too long."""
        self._workers = make_pool(self._options, 1)
        self._workers.grow(self._options.num_workers or 1)

    def teardown(self) -> None:
        """End that process."""
        if self._workers:
            self._workers.__exit__()
        self._workers = None

    def process(self, element: tuple[int, int]) -> Iterator[int]:
        """Write a shard and yield its number."""
        number, first = element
        name = f"{number:05d}.{secrets.token_hex(8)}"
        with self._folder.open(list_name(number)) as file:
            with self._folder.new_path(name + SHARD) as path:
                shard = _OneShard(path, first)
                self._write(shard, number, file)
            note = json.dumps(asdict(shard.finished[0]))
            self._folder.write(name + NOTE, note.encode())
        yield number

    def _write(self, shard: "_OneShard", number: int, file: BinaryIO) -> None:
        assert self._workers
        rejected, looked = 0, time.monotonic()
        with ShardWriter(shard, lambda _: False) as writer:
            for tasks, results in self._workers.map(_read_batches(file)):
                for task, result in zip(tasks, results, strict=True):
                    rejected += writer.add(task.name, task.text, result) is not None
                if rejected > self._most_rejected:
                    break
                if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                    self._folder.open(list_name(number)).close()
                    looked = time.monotonic()


@dataclass
class _OneShard:
    """Takes the only shard of a ShardWriter."""

    path: Path
    position: int

    def __post_init__(self) -> None:
        self.finished: list[FinishedShard] = []

    def shard_path(self, _: int) -> Path:
        """Return the shard's path."""
        return self.path

    def add(self, shard: FinishedShard) -> None:
        """Take the shard."""
        self.finished.append(shard)


def _read_batches(file: BinaryIO) -> Iterator[list[Task]]:
    while True:
        try:
            batch: Any = pickle.load(file)
        except EOFError:
            return
        yield batch
