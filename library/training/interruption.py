"""SIGINT and SIGTERM: the first stops the training after its step, a second one at once."""

import signal
from types import FrameType
from typing import Self

from library.errors import StoppedError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopOnSignal:
    """Within a `with` block, `received` is the first signal that came, or None.

    The training stops after its step. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._remember) for each in EXIT_CODES}
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        # The default action of either signal: a second one does not wait for anything.
        for each in EXIT_CODES:
            signal.signal(each, signal.SIG_DFL)


def stopped_error(received: signal.Signals, epoch: int, step: int) -> StoppedError:
    """Return the error that ends a run whose state was saved; `epoch` counts from 1."""
    word = "Interrupted" if received == signal.SIGINT else "Terminated"
    return StoppedError(
        f"{word} in epoch {epoch} (step {step}). State saved; run the same command to resume.",
        EXIT_CODES[received],
    )
