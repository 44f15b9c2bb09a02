"""A command of run.py that is killed at one of its changes of the disk.

Its `main` takes a part of the changed path, the number of the change, and run.py's arguments.
"""

import run
from tests.helpers.killed import kill_at_change


def main(arguments):
    """Do what run.py does; be killed on the way."""
    place, number, *words = arguments
    kill_at_change(int(number), place)
    run.main(words)
