"""SIGINT and SIGTERM: the first asks the loop to stop after its step, a second ends at once."""

import signal

from library.errors import StoppedError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopOnSignal:
    """Within a `with` block, `received` is the signal that came, or None."""

    def __init__(self):
        self.received = None
        self._before = {}

    def __enter__(self):
        for each in EXIT_CODES:
            self._before[each] = signal.signal(each, self._remember)
        return self

    def __exit__(self, *_):
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def error(self, where):
        """Return the error that ends the run, after its state was saved."""
        word = "interrupted" if self.received == signal.SIGINT else "terminated"
        return StoppedError(
            f"{word} {where}; the state is saved: start again to go on",
            EXIT_CODES[self.received],
        )

    def _remember(self, number, _):
        self.received = signal.Signals(number)
        # The default action of either signal: a second one does not wait for anything.
        for each in EXIT_CODES:
            signal.signal(each, signal.SIG_DFL)


class TimeBudget:
    """The chief's clock in seconds, as of the last time that all workers agreed on it."""

    def __init__(self, devices):
        self._devices = devices
        self.earlier = 0.0  # spent in earlier processes
        self.now = self.started_at = self.saved_at = self.evaluated_at = 0.0

    def start(self):
        """Count from now on."""
        self.agree()
        self.started_at = self.saved_at = self.evaluated_at = self.now

    def agree(self, received=None):
        """Read the clock anew. Give any worker's signal, if one of them received one."""
        received, self.now = self._devices.agree(received)
        return received

    @property
    def elapsed(self):
        """The seconds spent so far, in earlier processes too."""
        return self.earlier + self.now - self.started_at

    def fit_steps(self, step, planned, seconds):
        """Return how many of the planned steps fit into so many seconds, at the speed so far."""
        left = seconds - self.elapsed
        if left <= 0:
            return step
        fitting = step * (1 + left / max(self.elapsed, 1e-9))
        # In this order: there may be time without end.
        return max(round(min(planned, fitting)), step + 1)
