"""`python -m tests.fuzz SECONDS [TARGET…]`: fuzz each target, or those named, for so long."""

import sys
import time

from tests.fuzz.fuzz import fuzz
from tests.fuzz.targets import TARGETS

seconds, *names = sys.argv[1:]
for name in names or TARGETS:
    start = time.monotonic()
    count = fuzz(name, float(seconds))
    print(f"{name}: {count:,} inputs in {time.monotonic() - start:.0f} s", flush=True)
