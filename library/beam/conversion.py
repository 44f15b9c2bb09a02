"""Convert on Beam: this machine lists the files, workers write the shards, one step renames them.

The list of a shard's files, in the order of the index, is a file that its worker reads. So no step
of the pipeline needs more than one shard's records, and images never pass through this machine
(but those of a compressed tar, which can only be read from its beginning).
"""

import pickle
import secrets
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import apache_beam as beam

from library.beam.pipeline import read_options, run_pipeline
from library.beam.shared_folder import LocalFolder, RemoteFolder, SharedFolder
from library.beam.write_shard import NOTE, SHARD, WriteShard, list_name
from library.dataset import remote_splits
from library.dataset.conversion import check_rejected, most_rejected
from library.dataset.encode_record import Task
from library.dataset.file_index import FileIndex
from library.dataset.manifest import Manifest
from library.dataset.options import ConversionOptions
from library.dataset.shard_division import SHARD_BYTES, batches, max_shard_files, shard_ends
from library.dataset.shards import FinishedShard, WorkFolder, read_note
from library.errors import UserError
from library.files import new_file
from library.logging import progress_bar

# An upper bound of a stored JPEG's size.
_MAX_BYTES_PER_PIXEL = 0.5
# Between two looks at how many shards are finished: a disk answers sooner than a store.
_LOCAL_SECONDS, _REMOTE_SECONDS = 1.0, 10.0
# Concurrent renames in a store, each of which is a copy.
_THREADS = 16


class BeamEngine:
    """The engine `beam` of a conversion; see library.dataset.conversion.Engine.

    Args:
        options: Beam's pipeline options, as a command line.
        url: Where the shards go, if not into the local folder.
    """

    def __init__(self, options: str, url: str | None = None) -> None:
        self._options = read_options(options)
        self._url = url.rstrip("/") if url else None
        # Shards that wait at the URL for their final names: their folder and their files in it.
        self._uploaded: tuple[SharedFolder, list[str]] | None = None

    def write_shards(
        self,
        index: FileIndex,
        work: WorkFolder,
        classes: tuple[str, ...],
        options: ConversionOptions,
    ) -> None:
        """Write all files of the index, by workers."""
        # What an interrupted conversion of this machine's left.
        work.remove()
        work.finished = []
        token = secrets.token_hex(8)
        if self._url:
            folder: SharedFolder = RemoteFolder(f"{self._url}/{work.path.name}/{token}")
        else:
            folder = LocalFolder(work.path.absolute() / token)
        try:
            names = self._write(index, folder, work, (classes, options))
            if self._url:
                filled = zip(names, work.finished, strict=True)
                self._uploaded = folder, [name for name, shard in filled if shard.examples]
            else:
                for number, name in enumerate(names):
                    folder.move(name, str(work.shard_path(number)))
        except BaseException:
            _remove(folder)
            work.remove()
            raise

    def upload(self, manifest: Manifest) -> None:
        """Give the shards at the URL their final names, then write the manifest there."""
        assert self._url
        if not self._uploaded:  # This machine had them already.
            remote_splits.upload(manifest, self._url)
            return
        folder, names = self._uploaded
        targets = [f"{self._url}/{shard.file}" for shard in manifest.shards]

        def rename() -> None:
            with ThreadPoolExecutor(_THREADS) as executor:
                deque(executor.map(folder.move, names, targets), maxlen=0)

        try:
            remote_splits.upload(manifest, self._url, rename)
        finally:
            _remove(folder)

    def _write(
        self,
        index: FileIndex,
        folder: SharedFolder,
        work: WorkFolder,
        how: tuple[tuple[str, ...], ConversionOptions],
    ) -> list[str]:
        """Have all shards written, and return the names of their files in the shared folder."""
        classes, options = how
        ends = _find_ends(index, options)
        starts = [0, *ends[:-1]]
        for number, (first, end) in enumerate(zip(starts, ends, strict=True)):
            with folder.new_path(list_name(number)) as path, new_file(path) as file:
                for batch in batches(index, first, end, classes):
                    pickle.dump([_absolute(task) for task in batch], file, protocol=5)
        most = most_rejected(len(index), options.max_bad_fraction)
        step = WriteShard(folder, options, most)
        elements = list(enumerate(starts))
        with progress_bar(len(ends), work.name, unit=" shards") as bar:
            run_pipeline(
                # Shuffled, or one worker would get all.
                lambda pipeline: (
                    pipeline | beam.Create(elements) | beam.Reshuffle() | beam.ParDo(step)
                ),
                self._options,
                stop=lambda: _remove(folder),
                wait=_Watch(folder, bar, _REMOTE_SECONDS if self._url else _LOCAL_SECONDS),
            )
            names, work.finished = _read_notes(folder, len(ends))
            bar.update(len(ends) - bar.n)
        # Exactly those at which an engine that takes one file after the other gives up.
        check_rejected(work.rejected[: most + 1], len(index), options.max_bad_fraction)
        return names


class _Watch:
    """Shows in a progress bar how many shards are finished, each time it is called."""

    def __init__(self, folder: SharedFolder, bar: Any, seconds: float) -> None:
        self._folder = folder
        self._bar = bar
        self._seconds = seconds
        self._looked = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._looked >= self._seconds:
            with suppress(UserError):
                self._bar.update(len(_find_notes(self._folder)) - self._bar.n)
            self._looked = time.monotonic()


def _find_notes(folder: SharedFolder) -> dict[int, str]:
    """Return the name of a note for each finished shard."""
    names = sorted(each for each in folder.names() if each.endswith(NOTE))
    return {int(name.partition(".")[0]): name for name in names}


def _read_notes(folder: SharedFolder, count: int) -> tuple[list[str], list[FinishedShard]]:
    """Return the names of all shards' files, and the shards. Raise UserError if some lack."""
    notes = _find_notes(folder)
    if missing := count - len(notes):
        raise UserError(f"the pipeline has ended, and {missing:,} of {count:,} shards are missing")
    names = [notes[number] for number in range(count)]

    def read(name: str) -> FinishedShard:
        with folder.open(name) as file:
            return read_note(file.read())

    with ThreadPoolExecutor(_THREADS) as executor:
        return [each.removesuffix(NOTE) + SHARD for each in names], list(executor.map(read, names))


def _find_ends(index: FileIndex, options: ConversionOptions) -> list[int]:
    """Return where each shard ends in the index: with --num_shards, as in any conversion.

    Without, this engine can't know how large a shard gets, and estimates it.
    """
    total = len(index)
    if options.num_shards:
        return shard_ends(total, options.num_shards)
    size = index.bytes / total
    if max_edge := options.images.max_edge:
        size = min(size, _MAX_BYTES_PER_PIXEL * max_edge**2)
    files = min(max_shard_files(total), int(SHARD_BYTES / max(size, 1)))
    return [*range(files, total, files), total]


def _absolute(task: Task) -> Task:
    """Return a task whose path a worker finds, whatever its working directory is."""
    location: Any = task.location
    if not hasattr(location, "path") or Path(location.path).is_absolute():
        return task
    return task._replace(location=location._replace(path=str(Path(location.path).absolute())))


def _remove(folder: SharedFolder) -> None:
    with suppress(UserError):  # The store does not answer.
        folder.remove()
