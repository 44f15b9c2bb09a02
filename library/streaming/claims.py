"""Which process needs which shard of the cache, so that all together stay below the limit.

Each process has a subfolder, in which it lists the shards that it claims and downloads them, and
holds a lock on it for as long as it lives, however it ends. A whole shard is moved from there into
the folder that all processes share. A shard that no living process claims is deleted once its space
is needed. Everything is changed under one lock of the folder.
"""

import contextlib
import json
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from filelock import FileLock, Timeout

from library.errors import SettingsError

logger = logging.getLogger(__name__)

SUFFIX = ".tfrecord"
_LIST, _LOCK = "claims.json", "lock"


class Answer(Enum):
    """What became of a claim."""

    GRANTED = "granted"
    # Another process is downloading the shard: ask again later.
    ELSEWHERE = "elsewhere"
    # Other processes have yet to give up shards: ask again later.
    FULL = "full"


@dataclass
class _Listed:
    """What a process says of itself: its limit, the bytes it can't do without, and its claims."""

    limit: int
    least: int = 0
    sizes: dict[str, int] = field(default_factory=dict)


class Claims:
    """The shards in a cache folder that this process needs."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Join the processes that use a folder.

        Args:
            folder: The cache; it is made.
            limit: Most bytes that all shards in it may have. The smallest of all processes counts.
        """
        self.folder = folder
        # Shards are downloaded to here.
        self.own_folder = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True, exist_ok=True)
        # A FileLock lets the other threads of its process in.
        self._threads = threading.Lock()
        self._guard = FileLock(folder / ".lock", thread_local=False, fallback_to_soft=False)
        self._life = FileLock(self.own_folder / _LOCK, thread_local=False, fallback_to_soft=False)
        self._listed = _Listed(limit)
        with self._locked():
            self.own_folder.mkdir()
            with contextlib.suppress(OSError):  # The file system has no locks.
                self._life.acquire(timeout=0)
            self._write()

    def require(self, least: int) -> None:
        """Set the bytes that this process can't do without. Raise SettingsError if they don't fit.

        Args:
            least: Bytes of the shards that are read at the same time.
        """
        with self._locked():
            others = self._others()
            limit = min(each.limit for each in (self._listed, *others))
            needed = max(least, *(each.least for each in (self._listed, *others)))
            count = len(others) + 1
            if needed * count > limit:
                sharing = f" for each of {count} processes" if others else ""
                raise SettingsError(
                    f"stream_gigabytes {limit / 1e9:g} is too small for the shards that are read "
                    f"at the same time{sharing}; {_round_up(needed * count)} is enough, or "
                    "convert with a larger --num_shards"
                )
            self._listed.least = least
            self._write()

    def share(self) -> int:
        """Return the bytes that this process may claim: an equal share of the limit."""
        with self._locked():
            listed = (self._listed, *self._others())
        return min(each.limit for each in listed) // len(listed)

    def claim(self, name: str, size: int) -> Answer:
        """Keep a shard, or the space for it, and delete others that nobody claims if necessary.

        Args:
            name: File name of the shard.
            size: Its bytes.
        """
        with self._locked():
            others = self._others()
            if not (self.folder / name).exists() and any(name in each.sizes for each in others):
                return Answer.ELSEWHERE
            claimed = {name: size}
            for each in (self._listed, *others):
                claimed.update(each.sizes)
            limit = min(each.limit for each in (self._listed, *others))
            if not self._make_room(limit - sum(claimed.values()), claimed):
                return Answer.FULL
            self._listed.sizes[name] = size
            self._write()
        return Answer.GRANTED

    def release(self, names: Iterable[str]) -> None:
        """Give up shards; their files stay until their space is needed."""
        if names := [each for each in names if each in self._listed.sizes]:
            with self._locked():
                for each in names:
                    del self._listed.sizes[each]
                self._write()

    @property
    def names(self) -> list[str]:
        """The shards that this process claims."""
        return list(self._listed.sizes)

    def close(self) -> None:
        """Leave the folder; the shards stay for the next process."""
        with contextlib.suppress(OSError), self._locked():
            self._life.release()
            shutil.rmtree(self.own_folder, ignore_errors=True)

    def _make_room(self, room: int, claimed: dict[str, int]) -> bool:
        """Delete the oldest unclaimed shards until the others fit. Return whether they do."""
        if room < 0:
            return False
        stats = {
            path: path.stat() for path in self.folder.glob(f"*{SUFFIX}") if path.name not in claimed
        }
        room -= sum(each.st_size for each in stats.values())
        for path in sorted(stats, key=lambda each: stats[each].st_mtime_ns):
            if room >= 0:
                break
            with contextlib.suppress(PermissionError):  # On Windows: it is open.
                path.unlink()
                room += stats[path].st_size
        return room >= 0

    def _others(self) -> list[_Listed]:
        """Return what other living processes list; delete what dead ones left."""
        found = []
        with os.scandir(self.folder) as entries:
            folders = [Path(each) for each in entries if each.is_dir()]
        for folder in folders:
            if folder == self.own_folder:
                continue
            try:
                with FileLock(folder / _LOCK, fallback_to_soft=False).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)
            except Timeout:
                found.append(_Listed(**json.loads((folder / _LIST).read_bytes())))
            except OSError:
                pass  # The file system has no locks.
        return found

    def _write(self) -> None:
        # In place: nobody reads the list of a process that dies meanwhile, and emptying a file
        # first makes some file systems wait for the disk.
        path = self.own_folder / _LIST
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(json.dumps(asdict(self._listed)).encode())
            file.truncate()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._threads, contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # The file system has no locks.
                stack.enter_context(self._guard)
            yield


def _round_up(size: int) -> str:
    """Return bytes as gigabytes of three digits, never less."""
    digits = len(str(size))
    unit = 10 ** max(0, digits - 3)
    return f"{-(-size // unit) * unit / 1e9:.10g}"
