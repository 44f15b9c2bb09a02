"""The time of a run: when what was done last, and how many steps fit into what is left."""


class Clock:
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
        """Give how many of the planned steps fit into so many seconds, at the speed so far."""
        left = seconds - self.elapsed
        if left <= 0:
            return step
        fitting = step * (1 + left / max(self.elapsed, 1e-9))
        # In this order: there may be time without end.
        return max(round(min(planned, fitting)), step + 1)
