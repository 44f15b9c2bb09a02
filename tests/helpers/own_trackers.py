"""The main program of a process that sends events to trackers of somebody's own."""

from library.tracking.sender import send_from_stdin
from library.tracking.tracker import Tracker
from project.trackers import JsonLines


class Broken(Tracker):
    """Raises an error whatever it is told."""

    def __init__(self, run):
        raise ZeroDivisionError("not written well")


if __name__ == "__main__":
    send_from_stdin({"broken": Broken, "jsonl": JsonLines})
