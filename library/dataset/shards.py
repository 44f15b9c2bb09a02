"""Shards on their way: finished ones wait in a work folder until all are, then get their names.

The work folder lies beside the shards-to-be. A killed conversion finds there what it had finished;
whatever else it left is of no use and is written again.
"""

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from library.dataset.manifest import Shard, shard_name
from library.dataset.sources import labels_of
from library.files import new_file, remove_partials, sha256_of, sync_folder, write_file


@dataclass
class Finished:
    """A finished shard: the files [first, end) of the listing, less those left out."""

    first: int
    end: int
    examples: int
    bytes: int
    sha256: str
    counts: dict
    # [{"number" in the listing, "file", "label", "reason"}, …]
    left_out: list = field(default_factory=list)


def work_folder(folder, name):
    """Give the folder in which the conversion `name` keeps what it has finished."""
    return Path(folder) / f".{name}.converting"


def drop_work(folder, name):
    """Remove what a conversion left that was killed after it had written its manifest."""
    shutil.rmtree(work_folder(folder, name), ignore_errors=True)


class WorkFolder:
    """The finished shards of one plan. Those of another plan are dropped."""

    def __init__(self, folder, name, plan, first_number=0):
        self.target = Path(folder)
        self.name = name
        # How many shards there are before the first of these.
        self.first_number = first_number
        self.path = work_folder(folder, name)
        self.finished = []
        plan_path = self.path / "plan"
        if plan_path.exists() and plan_path.read_text() == plan:
            remove_partials(self.path)
            self._resume()
        else:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            write_file(plan_path, plan)

    @property
    def position(self):
        """How many files of the listing are dealt with."""
        return self.finished[-1].end if self.finished else 0

    @property
    def left_out(self):
        """What was left out so far, as in Finished."""
        return [each for shard in self.finished for each in shard.left_out]

    def remove(self):
        """Drop all that was finished."""
        shutil.rmtree(self.path, ignore_errors=True)

    def shard_path(self, number):
        """Give the path of a finished shard."""
        return self.path / f"{number:05d}.tfrecord"

    def add(self, shard):
        """Note a shard, whose file is in place already, as finished."""
        number = len(self.finished)
        write_file(self.path / f"{number:05d}.json", json.dumps(asdict(shard)))
        self.finished.append(shard)

    def publish(self):
        """Give finished shards their final names, and return them as the manifest's Shards.

        No manifest may list files of these names while this runs.
        """
        kept = self._kept()
        shards = []
        for position, (number, shard) in enumerate(kept):
            final = self._final_path(position, len(kept))
            if self.shard_path(number).exists():
                self.shard_path(number).replace(final)
            shards.append(Shard(final.name, shard.examples, shard.bytes, shard.sha256))
        sync_folder(self.target)
        return tuple(shards)

    def _kept(self):
        # Where all of its files were left out, a shard is empty.
        return [(n, shard) for n, shard in enumerate(self.finished) if shard.examples]

    def _final_path(self, position, count):
        first = self.first_number
        return self.target / shard_name(self.name, first + position, first + count)

    def _resume(self):
        notes = sorted(self.path.glob("*.json"))
        self.finished = [Finished(**json.loads(note.read_bytes())) for note in notes]
        for position, (number, shard) in enumerate(self._kept()):
            path = self.shard_path(number)
            if path.exists() and path.stat().st_size == shard.bytes:
                continue
            # Killed between the first renaming and the last: it may have its final name already.
            final = self._final_path(position, len(self._kept()))
            if not (final.exists() and sha256_of(final) == shard.sha256):
                del self.finished[number:]
                for note in notes[number:]:
                    note.unlink()
                return


class ShardWriter:
    """Writes records into one shard after another, in the order of the listing.

    When its block ends well, the last shard is finished; on an error, dropped.
    """

    def __init__(self, work, ends_after):
        self.work = work
        # (files in the shard, bytes in the shard, position in the listing) → whether to end it
        self.ends_after = ends_after
        # While the disk takes its time over a finished shard, the next one is filled.
        self.executor = ThreadPoolExecutor(1)
        self.storing = None
        self.position = work.position
        self._begin(len(work.finished))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            if kind is None and self.shard.end > self.shard.first:
                self._end()
            else:
                self._drop()
            if kind is None:
                self._wait()
        finally:
            self.executor.shutdown()

    def _begin(self, number):
        self.number = number
        self.shard = Finished(self.position, self.position, 0, 0, "", {})
        self.counts = Counter()
        self.digest = hashlib.sha256()
        self.context = new_file(self.work.shard_path(number))
        self.file = self.context.__enter__()

    def write(self, record, label):
        """Write a framed record of the `label` (a tuple: of several), made from the next file."""
        self.file.write(record)
        self.digest.update(record)
        self.shard.examples += 1
        self.shard.bytes += len(record)
        self.counts.update(labels_of(label))
        self._advance()

    def leave_out(self, file, reason):
        """Note that the listing's next file gives no record."""
        note = {"number": self.position, "file": file.name, "label": file.text, "reason": reason}
        self.shard.left_out.append(note)
        self._advance()

    def _advance(self):
        shard = self.shard
        self.position += 1
        shard.end = self.position
        if self.ends_after(shard.end - shard.first, shard.bytes, shard.end):
            self._end()
            self._begin(self.number + 1)

    def _end(self):
        self.shard.sha256 = self.digest.hexdigest()
        self.shard.counts = dict(self.counts)
        # One at a time: they must be noted in order, and an error should be told soon.
        self._wait()
        self.storing = self.executor.submit(self._store, self.context, self.shard)

    def _store(self, context, shard):
        context.__exit__(None, None, None)
        self.work.add(shard)

    def _wait(self):
        if self.storing is not None:
            self.storing.result()

    def _drop(self):
        error = InterruptedError()
        with contextlib.suppress(InterruptedError, RuntimeError):
            self.context.__exit__(type(error), error, None)
