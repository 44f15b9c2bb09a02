"""Apply a function to many items in several processes; an item that crashes one costs only itself.

A worker process runs `worker_process.py`; it and the pool exchange pickles over stdin and stdout.
pebble.ProcessPool, whose workers share one pipe, took 30 % more CPU time for images that are stored
as they are.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self

from library.dataset.worker_process import ALIVE, ALIVE_SECONDS, Result, send
from library.errors import UnreachableError, UserError

_ROOT = Path(__file__).resolve().parents[2]
# Batches under way per worker: one in work, one waiting, one being fetched.
_BATCHES_PER_WORKER = 3
# A worker's exit code when its time is up; Windows has no such signal.
_TIMEOUT_EXIT_CODE = -signal.SIGALRM if hasattr(signal, "SIGALRM") else 1
# A worker whose own timer does not end it, because it is stopped or hangs in the kernel, is killed
# this long after its time was up.
_GRACE_SECONDS = 2 + ALIVE_SECONDS
# How long a worker may take to end before it is killed, and then before it is abandoned.
_END_SECONDS = 2
# The longest time that a worker's start may take: its imports may lie on a slow network disk.
_START_SECONDS = 120
_WORKER_ENVIRONMENT = {
    # Each worker has one core: threads of libraries would only compete.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # By default glibc returns each array of pixels to the system and asks for zeroed pages again:
    # a third of the time per image.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "134217728",
}


class WorkerPool:
    """Processes that apply a function to items.

    The result of an item that makes its process crash, exceed its memory or its time is a failure;
    the process is replaced.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        max_workers: int,
        memory_bytes: int = 2 << 30,
        seconds: float = 60,
    ) -> None:
        """Start the first process, which imports its libraries while the caller looks for work.

        Args:
            function: What to apply to each item; picklable and importable. If it has a method
                `prefetch`, that is called with each batch before.
            max_workers: Largest number of processes; see `grow`.
            memory_bytes: Memory limit of a process; -1 for none.
            seconds: Time limit for an item.
        """
        self._settings = (function, memory_bytes, seconds)
        self._max_workers = max_workers
        self._is_closing = False
        self.processes: list[_Process] = []
        self._idle: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._threads = ThreadPoolExecutor(max_workers)
        self.grow(1)
        self._threads.submit(self._apply_batch, [])

    def grow(self, count: int) -> None:
        """Use up to `count` processes, limited by `max_workers`; each starts when it gets work."""
        while len(self.processes) < min(count, self._max_workers):
            self.processes.append(_Process(self._settings))
            self._idle.put(self.processes[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_closing = True
        if error != (None, None, None):
            # Nobody waits for the batches under way.
            for process in self.processes:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self.processes:
            process.end()

    def map(self, batches: Iterable[Sequence[Any]]) -> Iterator[tuple[Sequence[Any], list[Result]]]:
        """Yield (batch, results) in order; batches are taken only as they are needed.

        Raises UnreachableError if the function did, because then no item is at fault.
        """
        pending: deque[tuple[Sequence[Any], Future[list[Result]]]] = deque()
        for batch in batches:
            pending.append((batch, self._threads.submit(self._apply_batch, batch)))
            if len(pending) >= len(self.processes) * _BATCHES_PER_WORKER:
                yield _finish(*pending.popleft())
        while pending:
            yield _finish(*pending.popleft())

    def apply(self, item: Any) -> Result:
        """Return the result of one item. Thread-safe: waits for a free process."""
        results = self._apply_batch([item])
        return results[0] if results else (False, "was skipped: its process was ended")

    def _apply_batch(self, batch: Sequence[Any]) -> list[Result]:
        process = self._idle.get()
        try:
            return [] if self._is_closing else process.apply(batch)
        except _WorkerDiedError:
            if self._is_closing:
                return []
            # Applying to each item alone shows which one did it, and gives it a second chance.
            return [self._apply_alone(process, item) for item in batch]
        finally:
            self._idle.put(process)

    def _apply_alone(self, process: "_Process", item: Any) -> Result:
        try:
            return process.apply([item])[0]
        except _WorkerDiedError as error:
            return False, str(error)


def _finish(
    batch: Sequence[Any], future: Future[list[Result]]
) -> tuple[Sequence[Any], list[Result]]:
    results = future.result()
    for is_done, result in results:
        if is_done is None:
            raise UnreachableError(result)
    return batch, results


class _WorkerDiedError(Exception):
    """A worker process ended while it had work; the text says why, to follow an item's name."""


class _Process:
    """A worker process, started by its first work, and again after it died.

    A thread of its own waits at its pipes, and is abandoned with it: reading from a process that
    hangs in the kernel would not end even when it is killed.
    """

    def __init__(self, settings: tuple[Callable[[Any], Any], int, float]) -> None:
        self._settings = settings
        self.process: Any = None
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def apply(self, items: Sequence[Any]) -> list[Result]:
        """Return the results of items. Raise _WorkerDiedError."""
        if self.process is None:
            self._start()
        try:
            return self._exchange(items, self._settings[2] + _GRACE_SECONDS)
        except queue.Empty:
            self.kill()
            self.end()
            code = _TIMEOUT_EXIT_CODE
        except EOFError:
            code = self.end()
        if code == _TIMEOUT_EXIT_CODE:
            raise _WorkerDiedError(f"takes more than {self._settings[2]:g} s to decode")
        is_signal = -code in set(signal.Signals)
        cause = signal.Signals(-code).name if is_signal else f"exit code {code}"
        raise _WorkerDiedError(f"makes the decoder crash ({cause})")

    def kill(self) -> None:
        """End the process at once. Safe while another thread waits for it."""
        if (process := self.process) is not None:
            process.kill()
            self._answers.put(None)

    def end(self) -> int:
        """End the process if there is one, and return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        # The thread closes the pipes, which ends the process.
        self._requests.put(None)
        for _ in range(2):
            try:
                return process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        # Even a killed process stays while the kernel does something for it.
        return -signal.SIGTERM

    def _start(self) -> None:
        with tempfile.TemporaryFile() as errors:
            self.process = _start_python(errors)
            _widen(self.process.stdout.fileno())
            self._requests, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
            arguments = (self.process, self._requests, self._answers)
            threading.Thread(target=_carry, args=arguments, daemon=True).start()
            try:
                self._exchange(self._settings, _START_SECONDS)
            except (queue.Empty, EOFError):
                code = self.end()
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                last = lines[-1] if lines else f"exit code {code}"
                raise UserError(f"a worker process can't start: {last}") from None

    def _exchange(self, message: object, seconds: float) -> Any:
        """Send a message and return the answer.

        Raises queue.Empty if `seconds` pass without a sign of life, EOFError if the process ends.
        """
        self._requests.put(message)
        answer: Any = ALIVE
        while answer == ALIVE:
            answer = self._answers.get(timeout=seconds)
        if answer is None:
            raise EOFError
        return answer


def _start_python(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker process, which writes its errors into a file."""
    paths = filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | _WORKER_ENVIRONMENT
    command = [sys.executable, "-W", "ignore", "-m", "library.dataset.worker_process"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment)


def _carry(
    process: subprocess.Popen, requests: queue.SimpleQueue, answers: queue.SimpleQueue
) -> None:
    """Send messages to a process and collect its answers, until either side ends.

    Args:
        process: The process.
        requests: Messages for it; None to end it.
        answers: Gets its answers, and None when it ends.
    """
    stdin: Any = process.stdin
    stdout: Any = process.stdout
    try:
        while (message := requests.get()) is not None:
            send(stdin, message)
            while (answer := pickle.load(stdout)) == ALIVE:
                answers.put(answer)
            answers.put(answer)
            # Keep no images while waiting.
            message = answer = None
    except (OSError, EOFError, pickle.UnpicklingError):
        pass
    finally:
        answers.put(None)
        for pipe in (stdin, stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def _widen(pipe: int) -> None:
    """Let a pipe hold many records: at 64 KiB, the default, each image means a process switch."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl  # only on Unix, and F_SETPIPE_SZ only on Linux

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
