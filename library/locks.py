"""One process at a time: a lock on a file, which ends with its process, however that ends."""

import contextlib
import os
import socket
from pathlib import Path

from library.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def locked(path, what, advice):
    """Hold the lock on the file `path` within the block; the file is there only as long.

    Raises UserError if another process holds it: `what` is in use by that, and the advice.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _acquire(path, what, advice)
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


def _acquire(path, what, advice):
    """Give the open file, locked."""
    while True:
        file = path.open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read().strip() or "another process"
            raise UserError(f"{what} is in use by {holder}: {advice}") from None
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
