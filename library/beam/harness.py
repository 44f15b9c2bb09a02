"""The main program of a worker process of Beam's DirectRunner (`multi_processing`).

Beam starts its own program through a shell and leaves it running if the pipeline is stopped. This
one runs Beam's, and ends with the process that started it, or when that asks for it.
"""

import os
import signal
import sys
import threading
import time

# The file that exists as long as workers are needed: its path is in this environment variable.
LEASE = "BEAM_WORKER_LEASE"
_SECONDS_BETWEEN_LOOKS = 0.2


def _end_with(parent: int, lease: str) -> None:
    """End this process once its parent has ended or the lease is gone."""
    while os.getppid() == parent and os.path.exists(lease):  # noqa: PTH110 in a loop
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _run() -> None:
    # Ctrl-C reaches the whole process group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arguments = (os.getppid(), os.environ[LEASE])
    threading.Thread(target=_end_with, args=arguments, daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
    # The interpreter's own end would take a second, for which the pipeline waits.
    os._exit(0)


if __name__ == "__main__":
    _run()
