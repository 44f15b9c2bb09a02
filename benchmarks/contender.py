"""The process of one contender: it does its work again whenever it is asked, and says how long.

    python -m benchmarks.contender MODULE:FUNCTION [ARGUMENT …]

FUNCTION is a generator function. What it does before a bare `yield` is not measured; from there
until it yields an amount of work (images, steps, or a share of the whole), the clock runs:

    def decode(folder):
        images = find(folder)
        while True:
            yield
            for image in images: …
            yield len(images)

For each line on stdin the process answers one JSON object. Only the standard library is imported
here, because peers run in an environment of their own, which lacks what this project needs.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Sequence


def share_of_epochs(times: Sequence[float], epochs: int) -> float:
    """Return the share that the measured epochs have of the time that all will take.

    Args:
        times: When the first epoch began, and when each one ended; at least two epochs.
        epochs: Number of all; those to come take as long as the measured ones after the first.
    """
    begin, first, *_, last = times
    return (last - begin) / (first - begin + (epochs - 1) * (last - first) / (len(times) - 2))


def main() -> None:
    """Answer requests until stdin is closed."""
    # What libraries print must not mix with the answers.
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as answers:
        os.dup2(2, 1)
        path, *arguments = sys.argv[1:]
        module, _, function = path.partition(":")
        work = getattr(importlib.import_module(module), function)(*arguments)
        for _ in sys.stdin:
            next(work)
            start = time.perf_counter()
            amount = next(work)
            seconds = time.perf_counter() - start
            print(json.dumps({"seconds": seconds, "amount": amount}), file=answers)


if __name__ == "__main__":
    main()
