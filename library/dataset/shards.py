"""Shards on their way: finished ones wait in a work folder until all are, then get their names.

The work folder lies beside the shards-to-be. A killed conversion finds there what it had finished;
whatever else it left is of no use and is written again.
"""

import contextlib
import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from glob import escape
from pathlib import Path

import numpy as np

from library.dataset.encode_record import Task
from library.dataset.manifest import (
    Manifest,
    Shard,
    manifest_path,
    read_manifest,
    shard_name,
    write_manifest,
)
from library.dataset.records import read_frame_sizes
from library.dataset.sources.base import labels_of
from library.errors import DataError
from library.files import PARTIAL, new_file, remove_partials, sha256_of, sync_folder, write_file


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
    """Return the folder in which the conversion `name` keeps what it has finished."""
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
        """Return the path of a finished shard."""
        return self.path / f"{number:05d}.tfrecord"

    def add(self, shard):
        """Note a shard, whose file is in place already, as finished."""
        number = len(self.finished)
        write_file(self.path / f"{number:05d}.json", json.dumps(asdict(shard)))
        self.finished.append(shard)

    def publish(self):
        """Return finished shards their final names, and return them as the manifest's Shards.

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


def rejected_path(folder, name):
    """Return the path of the list of what was left out of the split `name`."""
    return Path(folder) / f"{name}.rejected.csv"


def publish(work, classes, counts, settings, base=None, is_multi_label=False):
    """Return all finished shards their names, write the manifest, drop what it replaces; return it.

    The shards follow those of the manifest `base`, if there is one. `labels` are as in a Manifest.
    """
    _remove_partials(work)
    previous = _previous_shards(work)
    if base is None:
        # First of all: until the new one is written, there is no split of this name. With a base,
        # the old one stays true all the while, for no file that it lists is touched.
        manifest_path(work.target, work.name).unlink(missing_ok=True)
    left_out = work.left_out
    _write_rejected(work, left_out, base)
    shown = tuple({"file": each["file"], "reason": each["reason"]} for each in left_out)
    manifest = Manifest(
        folder=work.target,
        name=work.name,
        classes=classes,
        class_counts=tuple(
            counts[each] + (base.class_counts[label] if base else 0)
            for label, each in enumerate(classes)
        ),
        shards=(base.shards if base else ()) + work.publish(),
        settings=settings,
        rejected=(base.rejected if base else ()) + shown,
        rejected_count=len(left_out) + (base.rejected_count if base else 0),
        is_multi_label=is_multi_label,
    )
    write_manifest(manifest)
    for stale in previous - set(manifest.paths):
        stale.unlink(missing_ok=True)
    work.remove()
    return manifest


def _remove_partials(work):
    """Delete what a conversion killed while it published left half-written beside the shards."""
    for path in (manifest_path(work.target, work.name), rejected_path(work.target, work.name)):
        # Only of this split: another may be under way in the same folder.
        for partial in work.target.glob(f".{escape(path.name)}.*{PARTIAL}"):
            partial.unlink(missing_ok=True)


def _previous_shards(work):
    try:
        return set(read_manifest(work.target, work.name).paths)
    except DataError:
        return set()


def _write_rejected(work, left_out, base):
    path = rejected_path(work.target, work.name)
    before = ""
    if base and path.exists():
        before = path.read_text(encoding="utf-8", errors="surrogateescape")
    if not left_out and not base:
        path.unlink(missing_ok=True)
    if not left_out:
        return
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if not before:
        rows.writerow(["file", "label", "reason"])
    rows.writerows(
        [each["file"], "|".join(labels_of(each["label"])), each["reason"]] for each in left_out
    )
    write_file(path, (before + text.getvalue()).encode("utf-8", "surrogateescape"))


# A killed conversion goes on after the last finished piece.
_PIECE_FILES = 1024
_PIECE_BYTES = 64 << 20


class Stage:
    """Pieces of finished records, in the order of the stream, inside the work folder."""

    def __init__(self, work):
        plan = (work.path / "plan").read_text()
        self.work = WorkFolder(work.path, work.name, plan)

    @staticmethod
    def ends_after(files, size, _position):
        """Return whether a piece is to end."""
        return files >= _PIECE_FILES or size >= _PIECE_BYTES

    def move(self, listing, writer):
        """Write all records into the writer's shards, in the order of the listing."""
        pieces, offsets, sizes = self._locate(len(listing))
        left_out = {each["number"]: each for each in self.work.left_out}
        for number in range(writer.position, len(listing)):
            found = listing.found_at(number)
            if found in left_out:
                note = left_out[found]
                writer.leave_out(Task((), -1, note["label"], note["file"]), note["reason"])
                continue
            with self.work.shard_path(pieces[found]).open("rb") as file:
                file.seek(offsets[found])
                writer.write(file.read(sizes[found]), listing[number].label)

    def _locate(self, count):
        """Return arrays of the piece, offset and size of each record, in the order of stream."""
        pieces, offsets, sizes = (np.zeros(count, np.int64) for _ in range(3))
        for piece, shard in enumerate(self.work.finished):
            absent = {each["number"] for each in shard.left_out}
            present = (n for n in range(shard.first, shard.end) if n not in absent)
            with self.work.shard_path(piece).open("rb") as file:
                for number, (offset, size) in zip(present, read_frame_sizes(file), strict=True):
                    pieces[number], offsets[number], sizes[number] = piece, offset, size
        return pieces, offsets, sizes
