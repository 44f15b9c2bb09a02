"""Contenders for tests of benchmarks. Only the standard library: they start at once."""

import time
from collections.abc import Iterator


def work(seconds: str, amount: str) -> Iterator[int | None]:
    """Prepare for a while, then use the processor for some seconds, each time."""
    time.sleep(0.2)
    print("what a library says")
    while True:
        yield
        end = time.process_time() + float(seconds)
        while time.process_time() < end:
            pass
        yield int(amount)


def fail() -> Iterator[int | None]:
    """Raise an error."""
    raise ValueError("no such data")
    yield
