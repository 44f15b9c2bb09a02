"""Time and memory limits for what native code does with data from elsewhere.

TensorFlow and HDF5 can't be interrupted, so a thread watches, and ends the process.
"""

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from library.errors import UserError, printable
from library.logging import discard_native_messages

_INTERVAL_SECONDS = 0.1


@contextlib.contextmanager
def limits(error: UserError, seconds: float, memory_bytes: float = math.inf) -> Iterator[None]:
    """End the process if the block takes too much time or memory.

    Args:
        error: What is shown then, in one line; it determines the exit code.
        seconds: The time limit.
        memory_bytes: How much the process may grow. Without effect where there is no /proc.
    """
    done = threading.Event()
    most = _resident_bytes() + memory_bytes

    def watch() -> None:
        deadline = time.monotonic() + seconds
        while not done.wait(_INTERVAL_SECONDS):
            if time.monotonic() > deadline:
                _end_process(error, f"it takes more than {seconds:g} s")
            if _resident_bytes() > most:
                _end_process(error, f"it takes more than {memory_bytes / 1e9:.2g} GB of memory")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _end_process(error: UserError, reason: str) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {printable(f'{error}: {reason}')}", file=sys.stderr)
    sys.stderr.flush()
    discard_native_messages()
    os._exit(error.exit_code)


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
