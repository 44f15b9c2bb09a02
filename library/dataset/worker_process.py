"""The main program of a worker process of `worker_pool.py`: a module that is quick to import."""

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from library.errors import UnreachableError

# (True, the function's result), (False, the reason why there is none) or, if the network failed,
# (None, the reason).
Result = tuple[bool | None, Any]

# What a process sends instead of its answer while items of a batch take long.
ALIVE, ALIVE_SECONDS = "alive", 1.0


def send(file: BinaryIO, message: object) -> None:
    """Write a message for the process at the other end of a pipe."""
    pickle.dump(message, file, protocol=5)
    file.flush()


def limit_memory(size: int) -> None:
    """Limit the memory of this process to `size` bytes, unless it has a lower limit already."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # only on Unix

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _run() -> None:
    """Read (function, memory_bytes, seconds) from stdin, then batches of items until its end."""
    requests, answers = sys.stdin.buffer, _take_stdout()
    # Ctrl-C reaches the whole process group; the pool ends a worker by closing its stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function, memory_bytes, seconds = pickle.load(requests)
    prefetch = getattr(function, "prefetch", None)
    limit_memory(memory_bytes)
    send(answers, "ready")
    _discard_output()
    with contextlib.suppress(EOFError):
        while True:
            items, results = pickle.load(requests), []
            said = time.monotonic()
            if prefetch:
                _limit_time(seconds)
                prefetch(items)
            for item in items:
                results.append(_apply(function, item, seconds))
                if time.monotonic() - said > ALIVE_SECONDS:
                    send(answers, ALIVE)
                    said = time.monotonic()
            send(answers, results)
            _limit_time(0)


def _take_stdout() -> BinaryIO:
    """Return stdout, and give stderr in its place to any library that prints."""
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stdout


def _discard_output() -> None:
    """Drop what decoders print: for millions of images it would fill the disk."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _apply(function: Callable[[Any], Any], item: Any, seconds: float) -> Result:
    _limit_time(seconds)
    try:
        return True, function(item)
    except MemoryError:
        return False, "needs too much memory to decode"
    except UnreachableError as error:
        return None, str(error)
    except Exception as error:
        return False, " ".join(str(error).split()) or type(error).__name__


def _limit_time(seconds: float) -> None:
    """Have the system end this process after `seconds`; 0 for never.

    Not by a Python signal handler, which would wait for a decoder that hangs.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    elif seconds:  # Windows: a thread, which takes far longer to start.
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)
    else:
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    # If the parent ends while we answer, nobody is left to tell.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _run()
