"""SIGINT and SIGTERM: the first asks the loop to stop after its step, a second ends at once."""

import signal

from library.errors import StoppedError

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopSignals:
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
        """Give the error that ends the run, after its state was saved."""
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
