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


def main(arguments):
    """Train; be killed on the way."""
    folder, engine, number = arguments
    changes = iter(range(int(number), -1, -1))

    def count(event, _):
        if event in _CHANGES and next(changes) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    run = small_run.make_run(Path(folder), trainer=ENGINES[engine], **OPTIONS)
    sys.addaudithook(count)
    run.fit()
