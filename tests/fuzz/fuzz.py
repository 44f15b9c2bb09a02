"""Run a target until its time is over; every input has limits of time and memory."""

import contextlib
import os
import tempfile
import time
import warnings
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from library.errors import UserError
from library.limits import limits
from tests.fuzz.targets import TARGETS

# How long an input may take, and how much memory it may add.
SECONDS, MEMORY_BYTES = 60, int(1.5 * 2**30)
# Inputs between two looks at the clock.
_ROUND = 50


def fuzz(name, seconds):
    """Fuzz a target for so many seconds. Return the number of inputs.

    Raises what the target raised, with the smallest input that Hypothesis found for it. An input
    that takes too much time or memory ends the process; it is left in `fuzz_input`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    count, last = 0, Path(tempfile.gettempdir(), f"fuzz_input_{name}")
    with tempfile.TemporaryDirectory() as folder:
        inputs, check = TARGETS[name](Path(folder))

        @settings(
            max_examples=_ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs)
        def run(item):
            nonlocal count
            count += 1
            last.write_text(repr(item), encoding="utf-8")
            error = UserError(f"fuzzing {name}, with the input in {last}")
            with limits(error, SECONDS, MEMORY_BYTES), _quiet():
                check(item)

        end = time.monotonic() + seconds
        while not count or time.monotonic() < end:
            run()
    last.unlink()
    return count


@contextlib.contextmanager
def _quiet():
    """Drop what libraries print about an input."""
    with Path(os.devnull).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield
