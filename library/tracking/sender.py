"""The process that sends events to trackers, beside the training, and how the training starts it.

Importing a tracker's package takes seconds, and its servers may be slow or down: in a process of
its own neither delays a step. The process lives as long as the one that trains, also if that makes
several runs. If the training is killed, the process sends what is queued, if it can, and ends.
"""

import atexit
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from library.messages import counted
from library.tracking.delivery import (
    Delivery,
    MakeTracker,
    count_unsent,
    lock_delivery,
    read_progress,
)
from library.tracking.event_queue import EventQueue

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
# Between two looks at the queue, and between two attempts if a tracker is down.
_POLL_SECONDS, _MAX_RETRY_SECONDS = 1.0, 30.0
# How long the end of the training waits for what is queued, and for each megabyte of files.
_WAIT_SECONDS, _WAIT_SECONDS_PER_MB = 20.0, 1.0
_LOG = "sender.log"
# The training goes first.
_NICENESS = 15


class Sender:
    """Starts the process when there is something to send, and waits for it at the end."""

    def __init__(self, module: str) -> None:
        """Prepare; nothing is started yet.

        Args:
            module: Name of the main module of the process, which calls `send_from_stdin`.
        """
        self._module = module
        self._process: Any = None
        self._runs: dict[Path, Sequence[str]] = {}

    def add(self, run_dir: Path, trackers: Sequence[str]) -> None:
        """Send the events of a run from now on. Raises OSError if no process can be started.

        Args:
            run_dir: The run's folder.
            trackers: Names of the trackers.
        """
        run_dir = run_dir.absolute()
        self._runs[run_dir] = trackers
        if self._process is None or self._process.poll() is not None:
            self._process = start_process(self._module, EventQueue(run_dir).folder / _LOG)
            atexit.unregister(self.finish)
            atexit.register(self.finish)
        line = json.dumps({"run_dir": str(run_dir), "trackers": list(trackers)})
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def has(self, run_dir: str | Path) -> bool:
        """Return whether the events of a run are sent."""
        return Path(run_dir).absolute() in self._runs

    def finish(self) -> None:
        """Wait a while until everything is sent, end the process, and log what is left."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.stdin.close()
            process.wait(_WAIT_SECONDS + _WAIT_SECONDS_PER_MB * _unsent_bytes(self._runs) / 1e6)
        except (OSError, subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
        for line in describe_unsent(self._runs):
            logger.warning(line)
        self._runs = {}


def describe_unsent(runs: Mapping[Path, Sequence[str]]) -> list[str]:
    """Return a line for each tracker that has not got all events.

    Args:
        runs: Folder of a run → names of its trackers.
    """
    lines = []
    for name in dict.fromkeys(name for names in runs.values() for name in names):
        unsent, reason, rejected = {}, None, None
        for folder in (folder for folder, names in runs.items() if name in names):
            queue = EventQueue(folder)
            progress = read_progress(queue, name)
            rejected = progress.rejected or rejected
            if count := count_unsent(queue, name):
                unsent[folder], reason = count, progress.error or reason
        if rejected:
            lines.append(f"{name} did not accept some events: {rejected}")
        if unsent:
            events, command = sum(unsent.values()), shlex.join(["track", *map(_shown, unsent)])
            lines.append(
                f"{counted(events, 'event')} could not be sent to {name} "
                f"({reason or 'no answer in time'}). To send what is left: run.py {command}"
            )
    return lines


def send_from_stdin(trackers: Mapping[str, MakeTracker]) -> None:
    """Send the events of the runs that stdin names, until it ends; the main program.

    Args:
        trackers: Name of a tracker → what connects to it.
    """
    if hasattr(os, "nice"):  # not on Windows
        os.nice(_NICENESS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # Ctrl-C is for the training, whose end closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    closing, ended, threads = threading.Event(), threading.Event(), []
    for line in sys.stdin:
        # What comes after the end of the run before is for the next one.
        ended.set()
        ended, request = threading.Event(), json.loads(line)
        queue = EventQueue(request["run_dir"])
        for name in request["trackers"]:
            delivery = (queue, name, trackers[name])
            thread = threading.Thread(target=_deliver, args=(delivery, ended, closing), daemon=True)
            thread.start()
            threads.append(thread)
    closing.set()
    for thread in threads:
        thread.join()


def _deliver(
    arguments: tuple[EventQueue, str, MakeTracker],
    ended: threading.Event,
    closing: threading.Event,
) -> None:
    """Send the events of one run to one tracker.

    Args:
        arguments: Those of Delivery.
        ended: Set when the run has no more events.
        closing: Set when the process must end: there is one more attempt then.
    """
    with lock_delivery(*arguments[:2]):
        delivery, pause = Delivery(*arguments), _POLL_SECONDS
        while True:
            # Look before sending: what is queued until then is sent.
            is_last, is_ended = closing.is_set(), ended.is_set() or delivery.is_moved
            try:
                if not delivery.is_moved:
                    delivery.send()
                if is_last or is_ended:
                    delivery.close()
                    return
                pause = _POLL_SECONDS
            except Exception as error:
                delivery.fail(error)
                logger.warning("%s to %s: %r", arguments[0].folder.parent, arguments[1], error)
                if is_last:
                    return
                pause = min(2 * pause, _MAX_RETRY_SECONDS)
            closing.wait(pause)


def start_process(module: str, log: Path) -> Any:
    """Start the process that sends, and return its Popen, to whose stdin the runs are written.

    Args:
        module: Its main module.
        log: Gets what it and the packages of trackers print.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            # Ctrl-C in a terminal reaches the whole process group.
            start_new_session=True,
        )


def _unsent_bytes(runs: Mapping[Path, Sequence[str]]) -> int:
    """Return the size of the files that are still to be sent."""
    size = 0
    for folder, names in runs.items():
        queue = EventQueue(folder)
        for name in names:
            for event in queue.read_all(read_progress(queue, name).sent):
                if event.get("event") == "file":
                    path = folder / event["path"]
                    files = path.rglob("*") if path.is_dir() else (path,)
                    size += sum(each.stat().st_size for each in files if each.is_file())
    return size


def _shown(folder: Path) -> str:
    """Return a folder as people would write it: relative to the current one if it is below it."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
