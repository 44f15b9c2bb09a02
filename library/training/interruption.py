"""SIGINT and SIGTERM: the first stops the training after its step, a second one at once."""

import signal
from contextlib import ExitStack
from typing import Self

from library.errors import EXIT_CODES, StoppedError, handled_signals

# What is kept after the last step.
FINISHED = "The training is finished and saved; run the same command to write its report."


class StopOnSignal:
    """Within a `with` block, `received` is the first signal that came, or None.

    The training stops after its step. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            reply = "Stopping after this step; press again to quit now"
            stack.enter_context(handled_signals(self._remember, reply))
            self._handling = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._handling.close()

    def _remember(self, received: signal.Signals) -> None:
        self.received = received


def stopped_error(
    received: signal.Signals, epoch: int, step: int, *, starts_over: bool = False
) -> StoppedError:
    """Return the error that ends a run whose state was saved.

    Args:
        received: The signal.
        epoch: The epoch that was stopped, from 1.
        step: The number of steps made.
        starts_over: Whether the same command would start over.
    """
    hint = resume_hint(starts_over=starts_over)
    return _stopped_by(received, f" in epoch {epoch} (step {step}). State saved; {hint}.")


def resume_hint(*, starts_over: bool) -> str:
    """Return how to resume, the end of a message; `starts_over` as in `stopped_error`."""
    return f"run the same command {'with --resume auto ' if starts_over else ''}to resume"


def finished_error(received: signal.Signals) -> StoppedError:
    """Return the error that ends a run after its last step."""
    return _stopped_by(received, f". {FINISHED}")


def _stopped_by(received: signal.Signals, text: str) -> StoppedError:
    word = "Interrupted" if received == signal.SIGINT else "Terminated"
    return StoppedError(word + text, EXIT_CODES[received])
