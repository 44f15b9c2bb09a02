"""One process at a time: a lock on a file, which ends with its process, however that ends."""

import contextlib
import functools
import os
import socket
import time
from pathlib import Path

from library.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
_PAUSE_SECONDS = 0.2


@contextlib.contextmanager
def locked(path, what, advice):
    """Hold the lock on the file `path` within the block; the file is there only as long.

    Raises UserError if another process holds it: `what` is in use by that, and the advice.
    """

    def refuse(holder):
        raise UserError(f"{what} is in use by {holder}: {advice}")

    with _held(path, refuse):
        yield


@contextlib.contextmanager
def locked_in_turn(path, tell):
    """Hold the lock like `locked`, but wait while others hold it: `tell(holder)` once for each."""
    with _held(path, functools.cache(tell)):
        yield


@contextlib.contextmanager
def _held(path, meet):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(path, meet)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            # While it is still ours: afterwards it might be the next one's.
            with contextlib.suppress(OSError):
                path.unlink()


def _acquire(path, meet):
    """Return the open file, locked. While another holds lock, `meet(holder)` again and again."""
    while True:
        file = path.open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            meet(holder)
            time.sleep(_PAUSE_SECONDS)
            continue
        except OSError:
            return file  # a file system that has no locks
        if _is_at(file, path):
            return file
        # Its holder ended, and removed it, between our opening it and our locking it.
        file.close()


def _is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
