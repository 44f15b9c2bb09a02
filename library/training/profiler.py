"""The profiler over some steps, for TensorBoard's profile plugin: `--profile_steps 10,20`.

Looking on must not harm: where nothing can be written, one warning is given and training goes on.
"""

import importlib.util

import tensorflow as tf

from library.errors import SettingsError

# The plugin's package, by its old and its new name.
PLUGINS = ("tensorboard_plugin_profile", "xprof")


def read_profile_steps(words):
    """Turn `10, 20` into (10, 20), the first and the last step; no words into None."""
    if not words:
        return None
    try:
        first, last = map(int, words if len(words) > 1 else words * 2)
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last:
        raise SettingsError(
            f"profile_steps: {','.join(words)!r} is not a first and a last step, such as 10,20"
        )
    return first, last


class Profile:
    """Records `steps`, a pair, into `folder`; does nothing where `steps` is None."""

    def __init__(self, steps, folder, report):
        self._first, self._last = steps or (0, -1)
        self._folder = folder
        self._report = report
        self._is_waiting, self._is_running = bool(steps), False

    def after(self, step):
        """Start or stop where it is time to, so many steps being done."""
        if self._is_running and step >= self._last:
            self._is_running = False
            if self._attempt(tf.profiler.experimental.stop):
                self._report(f"profile of the steps up to {step}: {self._folder}{_how_to_look()}")
        elif self._is_waiting and self._first - 1 <= step < self._last:
            self._is_waiting = False
            self._is_running = self._attempt(self._start)

    def steps_to_edge(self, step):
        """Return number of steps after `step` that lie on one side of where recording changes."""
        edges = [edge - step for edge in (self._first - 1, self._last) if edge > step]
        is_over = not (self._is_waiting or self._is_running)
        return None if is_over else min(edges, default=None)

    def close(self, step):
        """End what goes on, after the last step."""
        if self._is_running:
            self._last = step
            self.after(step)
        elif self._is_waiting and step < self._first:
            self._report(f"warning: no profile: this training did not come to step {self._first}")
        elif self._is_waiting:
            self._report(f"warning: no profile: step {self._last} was past when this began")

    def _start(self):
        self._folder.mkdir(parents=True, exist_ok=True)
        tf.profiler.experimental.start(str(self._folder))

    def _attempt(self, function):
        try:
            function()
        except (OSError, tf.errors.OpError) as error:
            reason = str(error).strip().split("\n")[0]
            self._report(f"warning: no profile ({reason}); training goes on")
            return False
        return True


def _how_to_look():
    if any(importlib.util.find_spec(name) for name in PLUGINS):
        return ", shown by `make board`"
    return " (to look at it in TensorBoard: pip install tensorboard-plugin-profile)"
