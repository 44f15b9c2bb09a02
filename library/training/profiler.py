"""The profile of some steps, for TensorBoard's profile plugin: `--profile_steps 10,20`.

If it can't be written, there is one warning and the training continues.
"""

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from library.errors import SettingsError
from library.training.listeners import try_to_write

logger = logging.getLogger(__name__)

# The plugin's package, by its old and its new name.
PLUGINS = ("tensorboard_plugin_profile", "xprof")


def read_profile_steps(words: Sequence[str]) -> tuple[int, int] | None:
    """Return ("10", "20") as (10, 20), the first and the last step; no words as None."""
    if not words:
        return None
    try:
        first, last = map(int, words if len(words) > 1 else (*words, *words))
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last:
        raise SettingsError(
            f"profile_steps: {','.join(words)!r} is not a first and a last step, such as 10,20"
        )
    return first, last


class Profiler:
    """Records the steps `first` to `last`, a pair, into a folder; does nothing for None."""

    def __init__(self, steps: tuple[int, int] | None, folder: Path) -> None:
        self._first, self._last = steps or (0, -1)
        self._folder = folder
        self._is_waiting, self._is_running = bool(steps), False

    def after_step(self, step: int) -> None:
        """Start or stop recording if it is time to."""
        if self._is_running and step >= self._last:
            self._is_running = False
            if try_to_write("No profile", tf.profiler.experimental.stop):
                logger.info(f"Profile of the steps up to {step}: {self._folder}{_viewing_hint()}")
        elif self._is_waiting and self._first - 1 <= step < self._last:
            self._is_waiting = False
            self._is_running = try_to_write("No profile", self._start)

    def steps_to_change(self, step: int) -> int | None:
        """Return the number of steps after `step` until recording starts or stops; None: never."""
        changes = [change - step for change in (self._first - 1, self._last) if change > step]
        is_over = not (self._is_waiting or self._is_running)
        return None if is_over else min(changes, default=None)

    def close(self, step: int) -> None:
        """Stop recording after the last step."""
        if self._is_running:
            self._last = step
            self.after_step(step)
        elif self._is_waiting and step < self._first:
            logger.warning(f"No profile: the training ended before step {self._first}")
        elif self._is_waiting:
            logger.warning(f"No profile: the training resumed after step {self._last}")

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        tf.profiler.experimental.start(str(self._folder))


def _viewing_hint() -> str:
    if any(importlib.util.find_spec(name) for name in PLUGINS):
        return ", shown by `make board`"
    return " (to view it in TensorBoard: pip install tensorboard-plugin-profile)"
