"""Write shards: finished ones wait in a work folder until all are, then get their final names.

The work folder lies beside the future shards. After a conversion was killed, its finished shards
are found there; anything else in it is dropped and written again.
"""

import base64
import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from library.dataset.label_conflicts import write_keys
from library.dataset.manifest import (
    Manifest,
    Shard,
    find_manifest,
    manifest_path,
    shard_name,
    write_manifest,
)
from library.dataset.sources.base import labels_of
from library.errors import UserError
from library.files import (
    is_in_use,
    new_file,
    parse_json,
    remove_partials,
    sha256_of,
    sync_folder,
    write_file,
)

Label = str | tuple[str, ...]


@dataclass(frozen=True)
class RejectedFile:
    """A file that can't be used. `number` is its position in the index of files."""

    number: int
    file: str
    label: Label
    reason: str


@dataclass
class FinishedShard:
    """The records of the files [first, end) of the index, except rejected ones.

    `keys` are those of the images, in base 64; see label_conflicts.py. `oddities` are what is odd
    about images that are stored all the same: how many have it, and the name of the first.
    """

    first: int
    end: int
    examples: int = 0
    bytes: int = 0
    sha256: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    rejected: list[RejectedFile] = field(default_factory=list)
    keys: str = ""
    oddities: dict[str, tuple[int, str]] = field(default_factory=dict)


def work_folder_path(folder: Path | str, name: str) -> Path:
    """Return the path of the work folder of the split `name`."""
    return Path(folder) / f".{name}.converting"


def remove_work_folder(folder: Path | str, name: str) -> None:
    """Remove what is left of a conversion that was killed after it had written its manifest."""
    shutil.rmtree(work_folder_path(folder, name), ignore_errors=True)


def rejected_path(folder: Path | str, name: str) -> Path:
    """Return the path of the list of the split's rejected files."""
    return Path(folder) / f"{name}.rejected.csv"


class WorkFolder:
    """The finished shards of one plan; those of another plan are dropped.

    Args:
        folder: Where the shards go in the end.
        name: The split's name.
        plan: A hash of everything that the shards' bytes depend on.
    """

    def __init__(self, folder: Path | str, name: str, plan: str) -> None:
        self.target = Path(folder)
        self.name = name
        self.plan = plan
        self.path = work_folder_path(folder, name)
        self.finished: list[FinishedShard] = []
        plan_path = self.path / "plan"
        if plan_path.exists() and plan_path.read_text(encoding="utf-8") == plan:
            remove_partials(self.path)
            self._resume()
        else:
            self.remove()
            self.path.mkdir(parents=True)
            write_file(plan_path, plan)

    @property
    def position(self) -> int:
        """How many files of the index are in finished shards, or rejected."""
        return self.finished[-1].end if self.finished else 0

    @property
    def rejected(self) -> list[RejectedFile]:
        """The files rejected so far."""
        return [file for shard in self.finished for file in shard.rejected]

    @property
    def keys(self) -> bytes:
        """The keys of all images."""
        return b"".join(base64.b64decode(shard.keys) for shard in self.finished)

    def remove(self) -> None:
        """Drop everything that was finished."""
        remove_work_folder(self.target, self.name)

    def shard_path(self, number: int) -> Path:
        """Return the path of a finished shard."""
        return self.path / f"{number:05d}.tfrecord"

    def add(self, shard: FinishedShard) -> None:
        """Record a shard, whose file is in place already, as finished."""
        # Not *.json alone, as in version 0.1, whose notes have other keys.
        note = self.path / f"{len(self.finished):05d}.shard.json"
        write_file(note, json.dumps(asdict(shard)))
        self.finished.append(shard)

    def publish(self) -> tuple[Shard, ...]:
        """Rename the finished shards. No manifest may list the final names while this runs."""
        filled = self._filled()
        shards = []
        for position, (number, shard) in enumerate(filled):
            final = self._final_path(position, len(filled))
            if self.shard_path(number).exists():
                self.shard_path(number).replace(final)
            shards.append(Shard(final.name, shard.examples, shard.bytes, shard.sha256))
        sync_folder(self.target)
        return tuple(shards)

    def _filled(self) -> list[tuple[int, FinishedShard]]:
        """Return the numbered shards, without those whose files were all rejected."""
        return [(number, shard) for number, shard in enumerate(self.finished) if shard.examples]

    def _final_path(self, position: int, count: int) -> Path:
        return self.target / shard_name(self.name, position, count)

    def _resume(self) -> None:
        notes = sorted(self.path.glob("*.shard.json"))
        self.finished = [read_note(note.read_bytes()) for note in notes]
        filled = self._filled()
        for position, (number, shard) in enumerate(filled):
            path = self.shard_path(number)
            if path.exists() and path.stat().st_size == shard.bytes:
                continue
            # Killed between the first and the last rename: it may have its final name already.
            final = self._final_path(position, len(filled))
            if not (final.exists() and sha256_of(final) == shard.sha256):
                del self.finished[number:]
                for note in notes[number:]:
                    note.unlink()
                return


def read_note(content: bytes) -> FinishedShard:
    """Return a finished shard from its JSON note."""
    note = parse_json(content)
    return FinishedShard(**note | {"rejected": [RejectedFile(**each) for each in note["rejected"]]})


class ShardFolder(Protocol):
    """Where a ShardWriter puts its shards, as a WorkFolder."""

    finished: list[FinishedShard]

    @property
    def position(self) -> int:
        """Where the next shard begins in the index of files."""

    def shard_path(self, number: int) -> Path:
        """Return the path of a shard."""

    def add(self, shard: FinishedShard) -> None:
        """Take a shard, whose file is in place already."""


class ShardWriter:
    """Writes records into one shard after another, in the order of the index. A context manager.

    When its block ends well, the last shard is finished; on an error it is dropped.

    Args:
        work: Where the shards go.
        is_full: Returns whether a shard is to end.
    """

    def __init__(self, work: ShardFolder, is_full: Callable[[FinishedShard], bool]) -> None:
        self.work = work
        self.is_full = is_full
        # A finished shard is synced to disk while the next one is filled.
        self.executor = ThreadPoolExecutor(1)
        self.storing: Future[None] | None = None
        self.number = len(work.finished)
        self._begin(work.position)

    @property
    def position(self) -> int:
        """How many files of the index were dealt with."""
        return self.shard.end

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self.executor:
            if kind is None and self.shard.end > self.shard.first:
                self._end()
            else:
                self._drop()
            if kind is None:
                self._wait()

    def add(self, name: str, label: Label, result: tuple[Any, Any]) -> RejectedFile | None:
        """Write what a worker process made of the index's next file, or note why there is nothing.

        Args:
            name: The file's name.
            label: Its class or classes.
            result: (True, what EncodeRecord returned) or (False, the reason why it can't be used).

        Returns:
            The file, if it can't be used.
        """
        is_record, value = result
        if not is_record:
            return self.reject(name, label, value)
        record, key, oddities = value
        for each in oddities:
            count, first = self.shard.oddities.get(each, (0, name))
            self.shard.oddities[each] = (count + 1, first)
        self.write(record, label, key)
        return None

    def write(self, record: bytes, label: Label, key: bytes = b"") -> None:
        """Write the framed record of the index's next file.

        Args:
            record: Its bytes.
            label: Its class or classes.
            key: The image's key.
        """
        self.file.write(record)
        self.digest.update(record)
        self.shard.examples += 1
        self.shard.bytes += len(record)
        self.counts.update(labels_of(label))
        self.keys += key
        self._advance()

    def reject(self, file: str, label: Label, reason: str) -> RejectedFile:
        """Note that the index's next file gives no record.

        Args:
            file: Its name.
            label: Its class or classes.
            reason: Why it can't be used.
        """
        rejected = RejectedFile(self.position, file, label, reason)
        self.shard.rejected.append(rejected)
        self._advance()
        return rejected

    def _advance(self) -> None:
        self.shard.end += 1
        if self.is_full(self.shard):
            self._end()
            self.number += 1
            self._begin(self.shard.end)

    def _begin(self, position: int) -> None:
        self.shard = FinishedShard(position, position)
        self.counts: Counter[str] = Counter()
        self.keys = bytearray()
        self.digest = hashlib.sha256()
        self.context = new_file(self.work.shard_path(self.number))
        self.file = self.context.__enter__()

    def _end(self) -> None:
        self.shard.sha256 = self.digest.hexdigest()
        self.shard.counts = dict(self.counts)
        self.shard.keys = base64.b64encode(self.keys).decode()
        # One at a time: shards are noted in order, and errors surface soon.
        self._wait()
        self.storing = self.executor.submit(self._store, self.context, self.shard)

    def _store(self, context: AbstractContextManager[BinaryIO], shard: FinishedShard) -> None:
        context.__exit__(None, None, None)
        self.work.add(shard)

    def _wait(self) -> None:
        if self.storing is not None:
            self.storing.result()

    def _drop(self) -> None:
        error = InterruptedError()
        with suppress(InterruptedError, RuntimeError):
            self.context.__exit__(type(error), error, None)


def check_unused(folder: Path, name: str) -> None:
    """Raise UserError if a training reads the split, whose shards must not change meanwhile."""
    if is_in_use(manifest_path(folder, name)):
        raise UserError(
            f"the split {name} in {folder} is being read by a training: wait for it, or choose "
            "another --tfrecord_dir"
        )


def publish(work: WorkFolder, manifest: Manifest, keys: bytes = b"") -> Manifest:
    """Rename the finished shards, write the manifest, remove what it replaces.

    Args:
        work: The finished shards.
        manifest: The split's, without shards and rejected files.
        keys: Those of all images; see label_conflicts.py.

    Returns:
        The manifest as written.
    """
    path, csv_path = manifest_path(work.target, work.name), rejected_path(work.target, work.name)
    # Half-written files of a conversion that was killed while it published. Only this split's:
    # another may be under way in the same folder.
    for each in (path, csv_path):
        remove_partials(work.target, each.name)
    previous = find_manifest(work.target, work.name)
    check_unused(work.target, work.name)
    # First, so that there is no split of this name until the new one is whole.
    path.unlink(missing_ok=True)
    rejected = work.rejected
    if rejected:
        _write_rejected(csv_path, rejected)
    else:
        csv_path.unlink(missing_ok=True)
    manifest = replace(
        manifest,
        shards=work.publish(),
        rejected=tuple({"file": each.file, "reason": each.reason} for each in rejected),
        rejected_count=len(rejected),
    )
    # Before the manifest, which tells that the conversion is finished.
    write_keys(manifest, keys)
    write_manifest(manifest)
    for stale in set(previous.paths if previous else ()) - set(manifest.paths):
        stale.unlink(missing_ok=True)
    work.remove()
    return manifest


def _write_rejected(path: Path, rejected: list[RejectedFile]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "label", "reason"])
    rows.writerows([each.file, "|".join(labels_of(each.label)), each.reason] for each in rejected)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))
