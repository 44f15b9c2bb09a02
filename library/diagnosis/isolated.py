"""Call a function in a process of its own, which may crash or hang without harm.

TensorFlow aborts its process on a processor without AVX, and can hang in a driver.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
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
        """Prepare the call of a module's function: function(send, *arguments), all picklable."""
        # A forked process would share the threads and locks of this one.
        context = multiprocessing.get_context("spawn")
        self._receiver, self._sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_call, args=(self._sender, function, arguments), daemon=True
        )

    def __enter__(self) -> "IsolatedCall":
        self._process.start()
        self._sender.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._receiver.close()

    def wait(self, seconds: float) -> Outcome:
        """Return what the function sent within `seconds`, or before it ended or crashed."""
        outcome, deadline = Outcome(), time.monotonic() + seconds
        while self._receiver.poll(max(0.0, deadline - time.monotonic())):
            try:
                name, value = self._receiver.recv()
            except EOFError:
                self._process.join()
                outcome.error = _describe_exit(self._process.exitcode or 0)
                return outcome
            if name is None:
                outcome.error = value
                return outcome
            outcome.results[name] = value
        outcome.error, outcome.is_late = "it takes too long to wait for it here", True
        return outcome


def _call(sender: Connection, function: Callable[..., None], arguments: tuple) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The caller ends this process.
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    error = ""
    try:
        function(lambda name, value: sender.send((name, value)), *arguments)
    except Exception as raised:
        error = first_line(raised)
    sender.send((None, error))


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"it crashed ({signal.Signals(-code).name})"
    return f"it ended with exit code {code}"
