"""Call a function in a process of its own, which may crash or hang without harm.

TensorFlow aborts its process on a processor without AVX, and can hang in a driver. Processes of
`multiprocessing` would share a tracker with the caller, which warns when one of them is killed.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from library.errors import first_line

# Sends one result by its name, as soon as it is known.
Send = Callable[[str, Any], None]


@dataclass
class Outcome:
    """What a function sent, and how it ended.

    Attributes:
        results: By name; the last one that was sent under it.
        error: Why the function did not come to its end; empty: it did.
        is_late: Whether it was still at work when its time was up.
    """

    results: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    is_late: bool = False


class IsolatedCall:
    """A call that runs beside the caller: `with IsolatedCall(…) as call: … call.wait(…)`."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        """Prepare function(send, *arguments); a module must have the function."""
        self._call = pickle.dumps((function, arguments))
        self._received: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()

    def __enter__(self) -> "IsolatedCall":
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdin
        self._process.stdin.write(self._call)
        self._process.stdin.close()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout
        self._process.stdout.close()

    def wait(self, seconds: float) -> Outcome:
        """Return what the function sent within `seconds`, or before it ended or crashed."""
        outcome, deadline = Outcome(), time.monotonic() + seconds
        while True:
            try:
                received = self._received.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                outcome.error, outcome.is_late = "it takes too long to wait for it here", True
                return outcome
            if received is None:
                outcome.error = _describe_exit(self._process.wait())
                return outcome
            name, value = received
            if not name:
                outcome.error = value
                return outcome
            outcome.results[name] = value

    def _receive(self) -> None:
        assert self._process.stdout
        try:
            while True:
                self._received.put(pickle.load(self._process.stdout))
        except (EOFError, pickle.UnpicklingError):
            self._received.put(None)


def serve() -> None:
    """Make the call that stdin names, and write its results to stdout: the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The caller ends this process.
    # What libraries print goes nowhere.
    with os.fdopen(os.dup(1), "wb", buffering=0) as output:
        os.dup2(2, 1)

        def send(name: str, value: Any) -> None:
            output.write(pickle.dumps((name, value)))

        error = ""
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
            function(send, *arguments)
        except Exception as raised:
            error = first_line(raised)
        send("", error)


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"it crashed ({signal.Signals(-code).name})"
    return f"it ended with exit code {code}"
