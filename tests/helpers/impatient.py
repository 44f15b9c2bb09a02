"""Do what run.py does, but wait for the chief's service for a moment only."""

import run
from library.distributed import devices


def main(arguments):
    """Run the arguments."""
    devices._CONNECT_SECONDS = 1
    return run.main(arguments)
