"""Caches on disk: a row of bytes and a label per example, complete or absent."""

import contextlib
import hashlib
import io
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf

from library.errors import DataError, UserError
from library.files import PARTIAL, locked, new_folder, write_file

logger = logging.getLogger(__name__)

_BLOBS, _INDEX = "blobs", "index"
_INDEX_FIELDS = [("offset", "<i8"), ("size", "<i8"), ("crc", "<u4")]


# Of an example: its index, its row and its label.
Row = tuple[int, bytes, Any]


class DiskCache:
    """A row of bytes and a label per example index, in a folder. Raises DataError if damaged.

    All rows are in one file. The index holds offset, size, CRC-32C and label of each, preceded by
    its own SHA-256.
    """

    def __init__(self, folder: Path) -> None:
        self._damage = f"the cache {folder} is damaged: delete it"
        # Why the last row could not be read.
        self.failure: str | None = None
        try:
            self._rows = _read_index(folder / _INDEX)
            self._file = (folder / _BLOBS).open("rb")
        except (OSError, ValueError):
            raise DataError(self._damage) from None
        weakref.finalize(self, self._file.close)
        # By example index.
        self.labels: np.ndarray = self._rows["label"]
        if os.fstat(self._file.fileno()).st_size != self._rows["size"].sum():
            raise DataError(self._damage)

    def read(self, index: int) -> bytes:
        """Return the row of an example. Raises DataError if it is damaged."""
        row = self._rows[index]
        content = os.pread(self._file.fileno(), int(row["size"]), int(row["offset"]))
        if google_crc32c.value(content) != row["crc"]:
            self.failure = self._damage
            raise DataError(self.failure)
        return content

    def verify(self) -> None:
        """Read every row. Raises DataError if one is damaged."""
        for index in range(len(self._rows)):
            self.read(index)

    def array(self, row_shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Map the rows, unchecked, as an array (count, *row_shape); they must be of one size."""
        return np.memmap(self._file, dtype, "r", shape=(len(self._rows), *row_shape))


class JoinedCache:
    """The caches of the parts of a split as one, whose indices count all parts in order."""

    def __init__(self, caches: Sequence[DiskCache]) -> None:
        self._caches = caches
        self._ends = np.cumsum([len(each.labels) for each in caches])
        self.labels: np.ndarray = np.concatenate([each.labels for each in caches])

    @property
    def failure(self) -> str | None:
        """Why the last row could not be read, or None."""
        return next((each.failure for each in self._caches if each.failure), None)

    def read(self, index: int) -> bytes:
        """Return the row of an example. Raises DataError if it is damaged."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        cache = self._caches[part]
        return cache.read(index - int(self._ends[part]) + len(cache.labels))

    def array(self, row_shape: tuple[int, ...], dtype: str) -> "JoinedRows":
        """Map the rows of all parts, unchecked; they must be of one size."""
        return JoinedRows([each.array(row_shape, dtype) for each in self._caches], self._ends)


class JoinedRows:
    """Arrays as one (n, …), which an array of indices reads a copy of some rows of."""

    def __init__(self, arrays: Sequence[np.ndarray], ends: np.ndarray) -> None:
        self._arrays, self._ends = arrays, ends
        self.shape = (int(ends[-1]), *arrays[0].shape[1:])
        self.nbytes = sum(each.nbytes for each in arrays)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self._arrays).astype(dtype or self._arrays[0].dtype, copy=False)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        rows = np.empty((len(indices), *self.shape[1:]), self._arrays[0].dtype)
        parts = np.searchsorted(self._ends, indices, side="right")
        for number in np.unique(parts):
            array, own = self._arrays[number], parts == number
            rows[own] = array[indices[own] - self._ends[number] + len(array)]
        return rows


def join_caches(caches: Sequence[DiskCache]) -> DiskCache | JoinedCache:
    """Return caches as one whose indices count them in order."""
    return caches[0] if len(caches) == 1 else JoinedCache(caches)


def open_cache(
    folder: Path,
    count: int,
    label_spec: tf.TensorSpec,
    make_rows: Callable[[], Iterable[Row]],
    row_bytes: int | None = None,
) -> DiskCache:
    """Open the cache in a folder; fill it first unless it is there. It is complete or absent.

    Of the processes that want the same cache at once, one fills it while the others wait.

    Args:
        folder: `<kind>-<key>`, where the key differs whenever the rows would.
        count: Number of examples.
        label_spec: Spec of a label.
        make_rows: Yields the row of each example once, in any order. What it raises leaves no cache
            behind.
        row_bytes: The size of all rows, None if they differ. Because `array` does not check rows of
            one size, each is checked now, and a damaged cache is filled again. Otherwise, only the
            index is checked now, and `read` checks each row.

    Raises:
        DataError: The cache is damaged.
        OSError: The cache can't be written.
    """
    verify = row_bytes is not None
    if not _is_filled(folder, verify):
        _remove_leftovers(folder)
        with locked(folder.with_name(f".{folder.name}.lock"), f"the cache {folder}", wait=True):
            # The process that held the lock may have filled it.
            if not _is_filled(folder, verify):
                if folder.exists():
                    logger.warning("the cache %s is damaged; filling it again", folder)
                _fill(folder, count, label_spec, make_rows(), row_bytes)
    return DiskCache(folder)


def find_missing_space(folder: Path, needed: int) -> str | None:
    """Return a few words about the disk of `folder` if it lacks the bytes needed, else None."""
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return None
    return f"{needed / 1e9:,.2g} GB are needed in {folder}, {free / 1e9:,.2g} GB are free"


def _is_filled(folder: Path, verify: bool) -> bool:
    if not folder.exists() or not verify:
        return folder.exists()
    try:
        DiskCache(folder).verify()
    except DataError:
        return False
    return True


def _fill(
    folder: Path, count: int, label_spec: tf.TensorSpec, rows: Iterable[Row], row_bytes: int | None
) -> None:
    label_field = ("label", label_spec.dtype.as_numpy_dtype, tuple(label_spec.shape))
    index = np.zeros(count, [*_INDEX_FIELDS, label_field])
    with new_folder(folder) as partial:
        # Not mapped: running out of disk would end the process.
        with (partial / _BLOBS).open("wb") as file:
            for number, content, label in rows:
                if row_bytes:
                    file.seek(number * row_bytes)
                index[number] = (file.tell(), len(content), google_crc32c.value(content), label)
                file.write(content)
        index_content = io.BytesIO()
        np.save(index_content, index)
        # With its SHA-256 in front: a label that changed would be learned.
        digest = hashlib.sha256(index_content.getvalue()).digest()
        write_file(partial / _INDEX, digest + index_content.getvalue())


def _read_index(path: Path) -> np.ndarray:
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("the hash does not match")
    return np.load(io.BytesIO(content))


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left of caches of this kind; a live one holds its lock."""
    for partial in folder.parent.glob(f".{folder.name.partition('-')[0]}-*{PARTIAL}"):
        lock = partial.with_name(partial.name.rsplit(".", 3)[0] + ".lock")
        with contextlib.suppress(UserError), locked(lock, str(partial)):
            _remove_if_dead(partial)


def _remove_if_dead(partial: Path) -> None:
    """Delete what a process left unfinished, unless it lives. Only while holding the lock.

    The second check is for file systems without locks.
    """
    # .<name>.<process>.<random>.partial
    process = partial.name.split(".")[-3]
    if process.isdigit() and not _is_alive(int(process)):
        shutil.rmtree(partial, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    # An earlier process can have had the number of this one, as in a restarted container.
    return process != os.getpid()
