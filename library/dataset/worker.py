"""A worker process: applies one function to batches of items until its input ends.

Started by `workers.py`; speaks pickles over stdin and stdout. It dies if an item makes the
decoder crash, takes too long or too much memory: that is what it is for.
"""

import contextlib
import faulthandler
import os
import pickle
import signal
import sys

from library.errors import UnreachableError


def main():
    """Read (function, bytes of memory, seconds) first, then one list of items after another."""
    requests, answers = sys.stdin.buffer, _private_stdout()
    # Ctrl-C reaches the whole group; the parent decides when a worker ends, by closing its stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function, memory_bytes, seconds = pickle.load(requests)
    limit_memory(memory_bytes)
    _send(answers, "ready")
    while True:
        try:
            items = pickle.load(requests)
        except EOFError:
            return
        _send(answers, _results(function, items, seconds))


def _results(function, items, seconds):
    """Give (True, result) or (False, reason) for each item; (None, reason) to give all up."""
    results = []
    for item in items:
        _limit_time(seconds)
        try:
            results.append((True, function(item)))
        except MemoryError:
            results.append((False, "needs too much memory to decode"))
        except UnreachableError as error:
            # Not this item's fault, so it must not be left out for it.
            results.append((None, str(error)))
        except Exception as error:
            results.append((False, " ".join(str(error).split()) or type(error).__name__))
    _limit_time(0)
    return results


def _limit_time(seconds):
    """Have the system end this process in so many seconds; never, if 0.

    What ends it is no Python, which would wait for a decoder that hangs.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    elif seconds:  # Windows; a thread, which takes far longer to start
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr)
    else:
        faulthandler.cancel_dump_traceback_later()


def _private_stdout():
    """Return stdout for ourselves, and stderr to any library that prints."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def _send(file, content):
    pickle.dump(content, file, protocol=5)
    file.flush()


def limit_memory(size):
    """Have the system refuse this process more than so many bytes; it may have less already."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # only on Unix

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


if __name__ == "__main__":
    # The parent gone while we were answering: nobody is left to tell.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
