"""Time and memory limits for what native code does with data from elsewhere.

TensorFlow and HDF5 can't be interrupted, so a thread watches, and ends the process.
"""

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from library.errors import UserError, printable
from library.logging import discard_native_messages

_INTERVAL_SECONDS = 0.1
_FLOAT_BYTES = 4
# The memory limit of a container.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@contextlib.contextmanager
def limits(error: UserError, seconds: float, memory_bytes: float = math.inf) -> Iterator[None]:
    """End the process if the block takes too much time or memory.

    Args:
        error: What is shown then, in one line; it determines the exit code.
        seconds: The time limit.
        memory_bytes: How much the process may grow. Without effect where there is no /proc.
    """
    done = threading.Event()
    most = _resident_bytes() + memory_bytes

    def watch() -> None:
        deadline = time.monotonic() + seconds
        while not done.wait(_INTERVAL_SECONDS):
            if time.monotonic() > deadline:
                _end_process(error, f"it takes more than {seconds:g} s")
            if _resident_bytes() > most:
                _end_process(error, f"it takes more than {memory_bytes / 1e9:.2g} GB of memory")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def memory_bytes() -> float:
    """Return how much memory this machine or container has; infinite if that is unknown."""
    try:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return math.inf
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        available = min(available, int(_CONTAINER_LIMIT.read_text(encoding="utf-8")))
    return available


def check_output_sizes(network: Any) -> None:
    """Raise ValueError unless half of the memory holds any layer's output for one image.

    Args:
        network: A Keras model.
    """
    available = memory_bytes()
    for layer in network._flatten_layers():
        for node in layer._inbound_nodes:
            for each in node.output_tensors:
                size = _FLOAT_BYTES * math.prod(edge or 1 for edge in each.shape)
                if size > available / 2:
                    raise ValueError(
                        f"its layer {layer.name} needs {size / 1e9:,.1f} GB for the output of one "
                        f"image, this machine has {available / 1e9:,.1f} GB of memory"
                    )


def _end_process(error: UserError, reason: str) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {printable(f'{error}: {reason}')}", file=sys.stderr)
    sys.stderr.flush()
    discard_native_messages()
    os._exit(error.exit_code)


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
