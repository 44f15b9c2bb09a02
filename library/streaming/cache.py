"""The cache of shards at a URL: downloads what is read next, and knows what may be deleted.

The shards that come next are known, because the order of an epoch is a function of (seed, epoch).
Each split has a part of the cache: the shards that it interleaves, and of the space beyond that a
share by its size. It holds the shards that are being read, then those that come next, in order.
"""

import atexit
import contextlib
import itertools
import logging
import math
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from library.dataset.manifest import Manifest, Shard
from library.dataset.remote_splits import DownloadProgress, fetch_shard, is_intact
from library.dataset.storage import cache_folder
from library.errors import DataError, UnreachableError, UserError, reason_of, signal_arrived
from library.streaming.claims import Answer, Claims

logger = logging.getLogger(__name__)

# Concurrent downloads: a single one would mostly wait for the network.
_THREADS = 8
# A shard that is missing or damaged, or a disk that is full, is tried so often.
_ATTEMPTS = 3
# A store that sends nothing for so long, while a reader waits, ends the command.
PATIENCE_SECONDS = 600.0
_MAX_DELAY_SECONDS = 30.0
# How long nothing must have come for a signal to end the wait for a shard.
_STALLED_SECONDS = 10.0
_SECONDS_BETWEEN_LINES = 60.0
# Other processes say nothing when they release space or finish a download.
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class RemoteShard:
    """A shard at a URL.

    Attributes:
        url: Of the file.
        path: In the cache.
        shard: Its size and hash.
        listed_in: File name of the manifest that lists it.
    """

    url: str
    path: Path
    shard: Shard
    listed_in: str


class StreamedShards:
    """The shards of a split, and in which order they are read next."""

    def __init__(self, name: str, shards: Sequence[RemoteShard], interleaved: int) -> None:
        """Take the split's name, its shards, and the number of shards that are read in turn."""
        self.name, self.shards = name, {str(each.path): each for each in shards}
        sizes = sorted((each.shard.bytes for each in shards), reverse=True)
        self.size, self.least = sum(sizes), sum(sizes[:interleaved])
        # Of the pass after the current one, and of the one after that which begins next.
        self.next_order: Sequence[str] = ()
        self.announced: Sequence[str] = ()


@dataclass(eq=False)
class Pass:
    """One pass over the shards of a split, such as an epoch.

    Attributes:
        shards: The split's.
        order: Paths of the shards, as they are read.
        position: Number of shards that were opened.
        opened: Those of them that are not read to the end yet.
        is_waiting: Whether its reader waits for the next one.
    """

    shards: StreamedShards
    order: Sequence[str]
    position: int = 0
    opened: set[str] = field(default_factory=set)
    is_waiting: bool = False


@dataclass
class _Failure:
    """Why a shard could not be downloaded, how often, and when to try again."""

    error: Exception
    attempts: int
    retry_at: float


class ShardCache:
    """Shards of any splits, downloaded ahead of their use, within a limit of bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Open the cache.

        Args:
            folder: Its folder, which other processes may use as well.
            limit: Most bytes of all shards in it.
        """
        self.folder, self.limit, self._claims = folder, limit, Claims(folder, limit)
        # The splits that were ever registered, by name and fingerprint.
        self.known: dict[tuple[str, str], StreamedShards] = {}
        # Why a reader had to give up.
        self.error: UserError | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self._splits: dict[str, StreamedShards] = {}
        self._passes: dict[int, Pass] = {}
        self._numbers = itertools.count()
        self._ready: set[str] = set()
        self._downloading: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self._progress = DownloadProgress(self)
        self._received_at = time.monotonic()
        self._failing_since = self._logged_at = 0.0
        threading.Thread(target=self._run, name="shard cache", daemon=True).start()
        atexit.register(self.close)

    def register(self, added: Mapping[tuple[str, str], StreamedShards]) -> None:
        """Add splits by name and fingerprint, in place of earlier ones of the same names.

        Raises SettingsError if the cache is too small for what is read at the same time.
        """
        with self._changed:
            splits = {**self._splits, **{each.name: each for each in added.values()}}
            self._claims.require(sum(each.least for each in splits.values()))
            self._splits = splits
            self.known.update(added)
            self._changed.notify_all()

    def read(
        self, shards: StreamedShards, order: Sequence[str], following: Sequence[str] | None = None
    ) -> Generator[tuple[int, str], None, None]:
        """Yield (number of this pass, path) of each shard in order, once it is in the cache.

        Both must be passed to `close_shard` when the shard is read to the end. All are released
        when the iterator is closed.

        Args:
            shards: The split's.
            order: Paths of the shards.
            following: The order of the pass after this one; None: this is a preview, which takes
                what is in the cache and waits for nothing.
        """
        current = Pass(shards, order if following is not None else ())
        with self._changed:
            number = next(self._numbers)
            self._splits[shards.name] = shards
            self._passes[number] = current
            if following is not None:
                shards.next_order = following
        try:
            for path in order:
                if following is None and not self._open_if_ready(current, path):
                    continue
                if following is not None:
                    self._wait_for(current, path)
                yield number, path
        finally:
            with self._changed:
                del self._passes[number]
                self._changed.notify_all()

    def close_shard(self, number: int, path: str) -> None:
        """Note that a pass has read a shard to the end."""
        with self._changed:
            if number in self._passes:
                self._passes[number].opened.discard(path)
                self._changed.notify_all()

    def close(self) -> None:
        """Stop all downloads, and let readers fail."""
        with self._changed:
            self._is_closed = True
            self._progress.stopped.set()
            self._changed.notify_all()
        self._claims.close()

    def update(self, count: int) -> None:
        """Note that bytes were received."""
        if count:
            self._received_at = time.monotonic()

    def _wait_for(self, current: Pass, path: str) -> None:
        """Return once a shard is in the cache, as one that the pass has opened."""
        began = logged_at = time.monotonic()
        with self._changed:
            current.is_waiting = True
            try:
                while not self._is_ready(path):
                    self._changed.notify_all()
                    self._changed.wait(1.0)
                    self._check(current.shards.shards[path], began)
                    if time.monotonic() - logged_at > _SECONDS_BETWEEN_LINES:
                        logged_at = time.monotonic()
                        minutes = (logged_at - began) / 60
                        url = current.shards.shards[path].url
                        logger.info(f"waiting for {url} for {minutes:.0f} minutes")
            finally:
                current.is_waiting = False
            current.position += 1
            current.opened.add(path)

    def _open_if_ready(self, current: Pass, path: str) -> bool:
        with self._changed:
            if is_ready := self._is_ready(path):
                current.opened.add(path)
        return is_ready

    def _is_ready(self, path: str) -> bool:
        # Somebody may have emptied the cache.
        if path in self._ready and not Path(path).exists():
            self._ready.discard(path)
            self._claims.release([Path(path).name])
        return path in self._ready

    def _check(self, remote: RemoteShard, began: float) -> None:
        """Raise the reason to wait no longer for a shard, if there is one."""
        if self._is_closed:
            raise InterruptedError("the cache is closed")
        if self.error:
            raise self.error
        failure, now = self._failures.get(str(remote.path)), time.monotonic()
        error = failure.error if failure else None
        if failure and failure.attempts >= _ATTEMPTS:
            if isinstance(error, DataError):
                self.error = error
            elif isinstance(error, OSError):
                self.error = UserError(
                    f"{self.folder} can't be written: {reason_of(error)}; use a smaller "
                    "--stream_gigabytes, or set XDG_CACHE_HOME to a folder on a larger disk"
                )
        silence = now - max(began, self._received_at)
        if silence > PATIENCE_SECONDS:
            reason = error or f"{remote.url} can't be read: no answer"
            self.error = UnreachableError(f"{reason} (for {silence / 60:.0f} minutes)")
        if self.error:
            raise self.error
        if signal_arrived.is_set() and now - self._received_at > _STALLED_SECONDS:
            self.error = UnreachableError(f"{remote.url} can't be read: stopped")
            raise self.error

    def _run(self) -> None:
        """Start downloads, whenever there is something to download and space for it."""
        with self._changed:
            while not self._is_closed:
                try:
                    delay = self._start_downloads()
                except OSError as error:
                    self.error = UserError(f"{self.folder} can't be written: {reason_of(error)}")
                    delay = 1.0
                self._changed.wait(delay)

    def _start_downloads(self) -> float:
        """Start the downloads that are due. Return the seconds until there may be others."""
        wanted, delay = self._wanted(), 1.0
        kept = {Path(path).name for path in (*wanted, *self._downloading)}
        self._claims.release(set(self._claims.names) - kept)
        self._ready &= wanted.keys()
        self._failures = {path: each for path, each in self._failures.items() if path in wanted}
        for path, remote in wanted.items():
            if len(self._downloading) >= _THREADS:
                break
            if path in self._ready or path in self._downloading:
                continue
            failure = self._failures.get(path)
            if failure and (left := failure.retry_at - time.monotonic()) > 0:
                delay = min(delay, left)
                continue
            answer = self._claims.claim(remote.path.name, remote.shard.bytes)
            if answer is Answer.GRANTED:
                self._downloading.add(path)
                threading.Thread(target=self._download, args=(remote,), daemon=True).start()
            else:
                delay = _POLL_SECONDS
            if answer is Answer.FULL:
                # Shards get their space in the order in which they are read.
                break
        return delay

    def _wanted(self) -> dict[str, RemoteShard]:
        """Return the shards that should be in the cache, by path, the most urgent ones first."""
        splits = list(self._splits.values())
        least, size = (sum(getattr(each, name) for each in splits) for name in ("least", "size"))
        spare = max(0, self._claims.share() - least) / max(1, size - least)
        # Those whose readers wait come first.
        passes = list(self._passes.values())
        waiting = {each.shards.name for each in passes if each.is_waiting}
        splits.sort(key=lambda each: each.name not in waiting)
        wanted = {path: each.shards.shards[path] for each in passes for path in sorted(each.opened)}
        for split in splits:
            room = split.least + min(1.0, spare) * (split.size - split.least)
            own = [each for each in passes if each.shards is split]
            opened = {path for each in own for path in each.opened}
            coming = [path for each in own for path in each.order[each.position :]]
            for path in dict.fromkeys((*opened, *coming, *split.next_order)):
                room -= split.shards[path].shard.bytes
                if room < 0:
                    break
                wanted[path] = split.shards[path]
        return wanted

    def _download(self, remote: RemoteShard) -> None:
        """Download a shard, in a thread of its own."""
        path, error = str(remote.path), None
        try:
            if not is_intact(remote.path, remote.shard):
                staged = self._claims.own_folder / remote.path.name
                fetch_shard(remote.shard, remote.url, staged, self._progress, remote.listed_in)
                staged.replace(remote.path)
        except Exception as raised:
            error = raised
        with self._changed:
            self._downloading.discard(path)
            if error is None:
                self._ready.add(path)
                self._succeed(remote)
            elif not self._is_closed:
                with contextlib.suppress(OSError):
                    self._claims.release([remote.path.name])
                self._fail(remote, error)
            self._changed.notify_all()

    def _succeed(self, remote: RemoteShard) -> None:
        self._received_at = time.monotonic()
        if self._failures.pop(str(remote.path), None) and not self._failures:
            seconds = self._received_at - self._failing_since
            logger.info(f"{remote.url}: downloaded, after {seconds:.0f} seconds of errors")

    def _fail(self, remote: RemoteShard, error: Exception) -> None:
        path, now = str(remote.path), time.monotonic()
        if not self._failures:
            self._failing_since, self._logged_at = now, -math.inf
        attempts = self._failures[path].attempts + 1 if path in self._failures else 1
        delay = min(_MAX_DELAY_SECONDS, 2.0 ** (attempts - 1))
        self._failures[path] = _Failure(error, attempts, now + delay)
        if now - self._logged_at > _SECONDS_BETWEEN_LINES:
            logger.warning(f"{error}; trying again")
            self._logged_at = now


_caches: list[ShardCache] = []


def open_cache(limit: int) -> ShardCache:
    """Return the user's cache of shards, one for all data, with a limit in bytes."""
    folder = cache_folder() / "image-classification-streamed"
    if not _caches or (_caches[0].folder, _caches[0].limit) != (folder, limit):
        close_caches()
        _caches.append(ShardCache(folder, limit))
    return _caches[0]


def find_streamed(split: Manifest) -> tuple[ShardCache, StreamedShards] | None:
    """Return the cache of a split and its shards, or None if it is not streamed."""
    key = split.name, split.fingerprint
    return next(((each, each.known[key]) for each in _caches if key in each.known), None)


def close_caches() -> None:
    """Stop all downloads of this process; what is in the cache stays."""
    while _caches:
        _caches.pop().close()
