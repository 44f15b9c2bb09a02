"""The free space and the speed of a disk, measured with one small file that is removed."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from library.errors import reason_of

_BLOCK = 4 << 20
_BLOCKS = 16  # 64 MiB at most
_SECONDS = 0.4


@dataclass(frozen=True)
class Disk:
    """A folder's disk.

    Attributes:
        folder: The folder as the settings name it.
        is_run: Whether a run is written there, not only data read.
        free: Free bytes.
        write: Bytes per second, with fsync; None: not measured.
        read: Bytes per second, past the page cache; None: not measured.
        error: Why nothing can be written there; empty: it can.
    """

    folder: str
    is_run: bool
    free: int
    write: float | None = None
    read: float | None = None
    error: str = ""


def existing_folder(folder: Path | str) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    path = Path(folder).absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def measure_disk(folder: Path | str, *, is_run: bool) -> Disk:
    """Write and read a small file in a folder, or in the nearest one above it that exists.

    Args:
        folder: The folder.
        is_run: Whether a run is written there, not only data read.
    """
    where = existing_folder(folder)
    free = shutil.disk_usage(where).free
    try:
        with tempfile.TemporaryFile(dir=where, prefix=".doctor-", buffering=0) as file:
            block = os.urandom(_BLOCK)
            blocks = min(_BLOCKS, free // (2 * _BLOCK))
            write = _measure(lambda: file.write(block), blocks, lambda: os.fsync(file.fileno()))
            read = None
            if hasattr(os, "posix_fadvise"):
                size = file.seek(0, os.SEEK_END)
                # Otherwise the bytes just written would come from memory.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.seek(0)
                read = _measure(lambda: len(file.read(_BLOCK)), size // _BLOCK)
    except OSError as error:
        return Disk(str(folder), is_run, free, error=reason_of(error))
    return Disk(str(folder), is_run, free, write, read)


def _measure(
    step: Callable[[], int], count: int, finish: Callable[[], object] = lambda: None
) -> float | None:
    """Return the bytes per second of at most `count` steps, each of which returns its bytes."""
    start, done = time.perf_counter(), 0
    for _ in range(count):
        done += step()
        if time.perf_counter() - start > _SECONDS:
            break
    finish()
    return done / (time.perf_counter() - start) if done else None
