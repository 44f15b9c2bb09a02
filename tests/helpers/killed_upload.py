"""A training at a URL that is killed once a number of generations is in the bucket.

Its `main` takes that number, and run.py's arguments.
"""

import os
import signal

import run
from library.remote_runs import uploads
from library.remote_runs.generations import RemoteFolder


def main(arguments):
    """Train; be killed on the way."""
    number, *words = arguments
    publish, published = RemoteFolder.publish, iter(range(int(number) - 1, -1, -1))
    uploads._POLL_SECONDS = 0.02

    def publish_and_die(self, *more):
        publish(self, *more)
        if next(published) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    RemoteFolder.publish = publish_and_die
    run.main(words)
