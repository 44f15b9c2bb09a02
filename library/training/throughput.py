"""How fast a training is: images per second, and the time spent waiting for input."""

import contextlib
import time
from collections.abc import Iterator

import tensorflow as tf


class Throughput:
    """Counts images and the seconds spent training, without pauses (evaluations, drawings)."""

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._resumed_at: float | None = time.perf_counter()  # None: paused
        # A tensor once there is one: adding does not wait for the device, reading would.
        self._input_wait: tf.Tensor | None = None
        self._marks: dict[str, tuple[int, float]] = {}

    def add(self, images: int, input_wait_seconds: tf.Tensor | None = None) -> None:
        """Count images trained on, and the seconds waited for them if they were measured."""
        self._images += images
        if input_wait_seconds is not None:
            before = 0.0 if self._input_wait is None else self._input_wait
            self._input_wait = before + input_wait_seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time within the block as training."""
        self._seconds, self._resumed_at = self._training_seconds(), None
        try:
            yield
        finally:
            self._resumed_at = time.perf_counter()

    def images_per_second(self, between: str) -> float:
        """Return the mean rate since the last call with the same `between`, such as "summaries"."""
        now = self._images, self._training_seconds()
        images, seconds = self._marks.get(between, (0, 0.0))
        self._marks[between] = now
        return (now[0] - images) / max(now[1] - seconds, 1e-9)

    @property
    def input_wait_share(self) -> float | None:
        """Share of the training time spent waiting for input; None if it was not measured."""
        if self._input_wait is None:
            return None
        return float(self._input_wait) / max(self._training_seconds(), 1e-9)

    def _training_seconds(self) -> float:
        running = 0.0 if self._resumed_at is None else time.perf_counter() - self._resumed_at
        return self._seconds + running
