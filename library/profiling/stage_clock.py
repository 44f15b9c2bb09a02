"""The wall time of this process since it was started, divided among stages."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StageClock:
    """Adds up the seconds of stages; what belongs to none of them is `other`."""

    def __init__(self) -> None:
        self._age, self._created = process_age(), time.perf_counter()
        # What came before is Python's start, and the modules that it imported.
        self.seconds: dict[str, float] = defaultdict(float, {"import": self._age})
        self._left_out = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Do not count the seconds of the block: it measures what a training would not do."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._left_out += time.perf_counter() - start

    def total(self) -> float:
        """Return the seconds since the process was started, without what was left out."""
        return self._age + time.perf_counter() - self._created - self._left_out


def process_age(stat: Path = Path("/proc/self/stat")) -> float:
    """Return the seconds since this process was started.

    Without Linux's file, it is the processor time so far: what starts Python rarely waits.
    """
    try:
        # After the program's name, which may hold spaces: fields 3 to 52 of proc_pid_stat(5).
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, AttributeError, ValueError, IndexError):
        return time.process_time()
