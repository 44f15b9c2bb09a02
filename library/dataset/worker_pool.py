"""Apply a function to many items in several processes; what crashes one costs that item alone."""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from library.errors import UnreachableError, UserError

_ROOT = Path(__file__).resolve().parents[2]
# How the worker's timer ends it: by a signal, or on Windows, which has none, by leaving with 1.
_OUT_OF_TIME = -signal.SIGALRM if hasattr(signal, "SIGALRM") else 1
# Batches under way for each worker: one in work, one waiting, one being fetched.
_AHEAD = 3


class WorkerPool:
    """Processes that apply `function` (picklable, importable) to items.

    An item that makes its process crash, hang for `seconds` or need more than `memory_bytes` has
    a failure as its result; the process is replaced.
    """

    def __init__(self, function, most, memory_bytes=2 << 30, seconds=60):
        self.setup = (function, memory_bytes, seconds)
        self.seconds = seconds
        self.most = most
        self.processes = []
        self.is_closing = False
        self.idle = queue.LifoQueue()
        self.executor = ThreadPoolExecutor(most)
        # While the caller still looks for work, the first process imports its libraries.
        self.grow(1)
        self.executor.submit(self._apply, [])

    def grow(self, count):
        """Use up to `count` processes, but no more than `most`; each starts when it gets work."""
        while len(self.processes) < min(count, self.most):
            self.processes.append(_Process(self.setup))
            self.idle.put(self.processes[-1])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.is_closing = True
        if error != (None, None, None):
            # Nobody waits for what is under way.
            for process in self.processes:
                process.kill()
        self.executor.shutdown(cancel_futures=True)
        for process in self.processes:
            process.end()

    def map(self, batches):
        """Yield (batch, results) in the order of batches, which are taken as they are needed.

        Each result is (True, the function's) or (False, the reason why there is none). Raises
        UnreachableError if the function did: that is the network's fault, and no item's.
        """
        waiting = deque()
        for batch in batches:
            waiting.append((batch, self.executor.submit(self._apply, batch)))
            if len(waiting) >= len(self.processes) * _AHEAD:
                done, future = waiting.popleft()
                yield done, _checked(future.result())
        while waiting:
            done, future = waiting.popleft()
            yield done, _checked(future.result())

    def apply(self, item):
        """Return the result of one item, when a process is free. For several threads at once."""
        results = self._apply([item])
        return results[0] if results else (False, "was left out: its process was ended")

    def _apply(self, batch):
        process = self.idle.get()
        try:
            return [] if self.is_closing else process.ask(batch)
        except _DiedError:
            if self.is_closing:
                return []
            # One of them did it: each by itself shows which, and gives it a second chance.
            return [self._apply_alone(process, item) for item in batch]
        finally:
            self.idle.put(process)

    def _apply_alone(self, process, item):
        try:
            return process.ask([item])[0]
        except _DiedError as error:
            return False, error.reason(self.seconds)


def _checked(results):
    for is_answered, result in results:
        if is_answered is None:
            raise UnreachableError(result)
    return results


class _DiedError(Exception):
    """A worker process ended in the middle of its work."""

    def reason(self, seconds):
        (code,) = self.args
        if code == _OUT_OF_TIME:
            return f"takes more than {seconds:g} s to decode"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"makes the decoder crash ({signal.Signals(-code).name})"
        return f"makes the decoder crash (exit code {code})"


class _Process:
    """One worker process, started when it is first asked, and again after it died."""

    def __init__(self, setup):
        self.setup = setup
        self.process = None

    def ask(self, items):
        if self.process is None:
            self._start()
        try:
            _send(self.process.stdin, items)
            return pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise _DiedError(self.end()) from None

    def kill(self):
        """Have the process die at once, whatever it does."""
        process = self.process
        if process is not None:
            process.kill()

    def end(self):
        """End the process; give its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        try:
            return process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _start(self):
        environment = dict(os.environ)
        paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        # Each worker has one core: libraries that start threads of their own would only compete.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        # Else glibc gives each array of pixels back to the system, and asks for zeroed pages again
        # for the next: a third of the time that an image takes.
        environment |= {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "134217728"}
        command = [sys.executable, "-W", "ignore", "-m", "library.dataset.worker"]
        with tempfile.TemporaryFile() as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
            _widen(self.process.stdout)
            try:
                _send(self.process.stdin, self.setup)
                pickle.load(self.process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                code = self.end()
                errors.seek(0)
                lines = errors.read().decode(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
                raise UserError(f"a worker process can't start: {last}") from None


def _widen(pipe):
    """Let a pipe hold many records: with 64 KiB, the default, each image would mean a switch."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl  # only on Unix, and its F_SETPIPE_SZ only on Linux

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def _send(file, content):
    pickle.dump(content, file, protocol=5)
    file.flush()


def available_cores():
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
