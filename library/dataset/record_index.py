"""An index of TFRecord files of other programs: counts, classes and hashes, in place of a manifest.

It is made once, in parallel, and stored beside the files or, if that folder can't be written, in
the user's cache folder. A file is indexed again when its size or its time has changed.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from library.dataset.compression import find_compression, open_records
from library.dataset.images import UnusableImageError, decode_image, find_conformant
from library.dataset.options import ImageOptions
from library.dataset.record_fields import Pair, RecordClasses, RecordContent, RecordFields
from library.dataset.records import read_frames
from library.dataset.storage import local_folder
from library.dataset.worker_pool import WorkerPool, available_cores
from library.errors import DataError, reason_of
from library.files import locked, sha256_of, write_file
from library.messages import counted

logger = logging.getLogger(__name__)

_FORMAT = "index of TFRecord files, version 1"
_STORED = ImageOptions(max_edge=0)
# To find out whether an image decodes, a small one will do.
_PROBE = replace(_STORED, max_edge=64)


@dataclass(frozen=True)
class IndexedFile:
    """What the index knows of a file.

    Attributes:
        bytes: Its size.
        modified: Its time, in nanoseconds.
        sha256: Of its content.
        compression: What tf.data calls it; "" for none.
        examples: The number of records.
        is_conformant: Whether all images are JPEGs that need no conversion.
        classes: (label, text, number of records, number of the first one); a label or a text that
            the records lack is None.
    """

    bytes: int
    modified: int
    sha256: str
    compression: str
    examples: int
    is_conformant: bool
    classes: tuple[tuple[int | str | None, str | None, int, int], ...]

    def is_current(self, path: Path) -> bool:
        """Return whether the file is as it was when it was indexed."""
        stat = path.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.bytes, self.modified)


@dataclass(frozen=True)
class IndexFile:
    """The function from a path to an IndexedFile; picklable, for worker processes."""

    fields: RecordFields

    def __call__(self, path: str) -> IndexedFile:
        """Read a whole file. Raises DataError, naming the first unusable record."""
        counts: Counter[Pair] = Counter()
        firsts: dict[Pair, int] = {}
        classes = RecordClasses(self.fields)
        is_conformant, number = True, -1
        try:
            stat = Path(path).stat()
            compression = find_compression(path) or ""
            with open_records(path) as file:
                for number, (_, serialized) in enumerate(read_frames(file, path)):
                    where = f"{path}: record {number}"
                    content = self.fields.read(serialized, where)
                    if not classes.classes_of(content, where) and not self.fields.is_multi_label:
                        raise DataError(f"{where} has the label {content.labels[0]}, no class")
                    is_conformant &= _check_image(content, where)
                    counts.update(content.pairs)
                    for pair in content.pairs:
                        firsts.setdefault(pair, number)
            sha256 = sha256_of(path)
        except OSError as error:
            raise DataError(f"{path} can't be read: {reason_of(error)}") from None
        return IndexedFile(
            bytes=stat.st_size,
            modified=stat.st_mtime_ns,
            sha256=sha256,
            compression=compression,
            examples=number + 1,
            is_conformant=is_conformant,
            classes=tuple((*pair, counts[pair], first) for pair, first in firsts.items()),
        )


def _check_image(content: RecordContent, where: str) -> bool:
    """Return whether an image is a conformant JPEG. Raise DataError if it does not decode."""
    if content.shape:
        return False
    try:
        decode_image(content.image, _PROBE)
        return find_conformant(content.image, _STORED) is not None
    except UnusableImageError as error:
        raise DataError(f"{where} {error}; convert_dataset.py would skip and list it") from None


def index_files(paths: Sequence[Path], fields: RecordFields) -> dict[Path, IndexedFile]:
    """Return what the index knows of files; those that are new or have changed are read first.

    Args:
        paths: The files.
        fields: Which fields hold what. There is an index for each choice of fields.

    Raises:
        DataError: A file or a record is unusable.
    """
    found: dict[Path, IndexedFile] = {}
    for folder in dict.fromkeys(path.parent for path in paths):
        found |= _index_folder(folder, [each for each in paths if each.parent == folder], fields)
    return found


def count_classes(
    indexed: Mapping[Path, IndexedFile], classes: RecordClasses
) -> tuple[Counter[str], int]:
    """Return the number of records of each class, and of all records.

    Args:
        indexed: The files of a split.
        classes: The classes of other splits, which these must not contradict.

    Raises:
        DataError: Labels and texts contradict each other.
    """
    counts: Counter[str] = Counter()
    for path, each in indexed.items():
        for label, text, count, first in each.classes:
            labels = () if label is None else (label,)
            texts = () if text is None else (text,)
            content = RecordContent(b"", None, labels, texts, "")
            for name in classes.classes_of(content, f"{path}: record {first}"):
                counts[name] += count
    return counts, sum(each.examples for each in indexed.values())


def _index_folder(
    folder: Path, paths: Sequence[Path], fields: RecordFields
) -> dict[Path, IndexedFile]:
    key = hashlib.blake2b(repr(fields).encode(), digest_size=4).hexdigest()
    beside = folder / f".tfrecord_index_{key}.json"
    cached = local_folder(str(folder.resolve()), "indexed") / beside.name
    known = _read(cached) | _read(beside)
    if _stale(paths, known):
        target = beside if os.access(folder, os.W_OK) else cached
        lock = target.with_name(f"{target.name}.lock")
        with locked(lock, f"the index {target}", wait=True):
            # The previous holder of the lock may have indexed the files.
            known |= _read(target)
            if stale := _stale(paths, known):
                logger.info("indexing %s, once: %s", counted(len(stale), "TFRecord file"), target)
                try:
                    for path, each in _run(stale, fields):
                        known[path.name] = each
                finally:
                    # Also after an error: what was read is read once.
                    _write(target, known)
    return {path: known[path.name] for path in paths}


def _stale(paths: Sequence[Path], known: Mapping[str, IndexedFile]) -> list[Path]:
    return [
        path for path in paths if path.name not in known or not known[path.name].is_current(path)
    ]


def _run(paths: Sequence[Path], fields: RecordFields) -> Iterator[tuple[Path, IndexedFile]]:
    """Yield (path, what was found in it). Raise DataError for the first unusable file."""
    sizes = [path.stat().st_size for path in paths]
    with (
        WorkerPool(IndexFile(fields), available_cores(), _STORED.memory_bytes, 0) as workers,
        # No bar unless stderr is a terminal.
        tqdm(total=sum(sizes), unit="B", unit_scale=True, desc="index", disable=None) as bar,
    ):
        workers.grow(len(paths))
        results = workers.map([str(path)] for path in paths)
        for path, size, (_, [(is_done, result)]) in zip(paths, sizes, results, strict=True):
            if not is_done:
                raise DataError(result)
            bar.update(size)
            yield path, result


def _read(path: Path) -> dict[str, IndexedFile]:
    """Return {file name: what is known of it}; nothing if there is no index, or it is damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        stored = json.loads(path.read_bytes())
        if stored["format"] == _FORMAT and stored["sha256"] == _hash(stored["files"]):
            return {name: _from_json(each) for name, each in stored["files"].items()}
    return {}


def _write(path: Path, known: Mapping[str, IndexedFile]) -> None:
    files = {name: asdict(each) for name, each in sorted(known.items())}
    content = {"format": _FORMAT, "sha256": _hash(files), "files": files}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(content) + "\n")
    except OSError as error:
        logger.warning(
            f"{path} can't be written, so the files are indexed again: {reason_of(error)}"
        )


def _hash(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _from_json(content: Mapping[str, Any]) -> IndexedFile:
    classes = tuple(map(tuple, content["classes"]))
    return IndexedFile(**{**content, "classes": classes})
