"""A training that is killed at one of its changes of the disk: for tests/training/test_resume.py.

Its `main` takes a folder, an engine's name, and the number of the change.
"""

import os
import signal
import sys
from pathlib import Path

from project.assembly import ENGINES
from tests.helpers import small_run

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
OPTIONS = {
    # After each step, and more than one is kept.
    "save_checkpoints_secs": 0,
    "ema_decay": 0.9,
    "hyperparameters": {"optimizer": "momentum"},
}


def kill_at_change(number, place=""):
    """Kill this process at a change of the disk, 0 for the next, below paths that have `place`."""
    changes = iter(range(number, -1, -1))

    def count(event, arguments):
        if event in _CHANGES and place in str(arguments[0]) and next(changes) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def main(arguments):
    """Train; be killed on the way."""
    folder, engine, number = arguments
    run = small_run.make_run(Path(folder), trainer=ENGINES[engine], **OPTIONS)
    kill_at_change(int(number))
    run.fit()
