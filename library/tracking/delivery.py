"""Sends the events of one run to one tracker, in order, and notes on disk how far it got."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from library.errors import first_line
from library.files import locked, parse_json, write_file
from library.tracking.event_queue import Event, EventQueue
from library.tracking.tracker import (
    INTERRUPTED,
    Metrics,
    Parameter,
    RejectedError,
    TrackedRun,
    Tracker,
)

logger = logging.getLogger(__name__)

# Of a reason, in a message of one line.
_MAX_CHARACTERS = 200
MakeTracker = Callable[[TrackedRun], Tracker]


@dataclass
class Progress:
    """How far the events of a run were sent to one tracker.

    Attributes:
        sent: Position in the queue: all events before it are safe with the tracker.
        memory: What the tracker wants to find again.
        url: Where the tracker shows the run; None if unknown.
        error: Why the last attempt failed; None: it succeeded.
        rejected: Why the tracker did not accept an event, the last one; None: it accepted all.
        is_finished: Whether the tracker knows that the training has ended.
    """

    sent: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    url: str | None = None
    error: str | None = None
    rejected: str | None = None
    is_finished: bool = False


def progress_path(queue: EventQueue, name: str) -> Path:
    """Return the file with the Progress of the tracker `name`."""
    return queue.folder / f"{name}.json"


def read_progress(queue: EventQueue, name: str) -> Progress:
    """Return the Progress of the tracker `name`; if there is none, that of one never used."""
    try:
        found = parse_json(progress_path(queue, name).read_bytes())
        return Progress(**{each.name: found[each.name] for each in fields(Progress)})
    except (OSError, ValueError, KeyError, TypeError):
        return Progress()


class Delivery:
    """Sends the events of one run to one tracker. Only one process may do so: see `locked`."""

    def __init__(self, queue: EventQueue, name: str, make_tracker: MakeTracker) -> None:
        """Prepare to send, from where the last process stopped.

        Args:
            queue: The events of the run.
            name: The tracker's name.
            make_tracker: Connects to it.
        """
        self._queue, self._name, self._make_tracker = queue, name, make_tracker
        self.progress = read_progress(queue, name)
        self._position = self.progress.sent
        self._saved = asdict(self.progress)
        self._tracker: Tracker | None = None
        self._file = queue.file_id()

    @property
    def is_moved(self) -> bool:
        """Whether another run is in the folder now: `--resume never` moves what is there."""
        if self._file is None:
            self._file = self._queue.file_id()
        return self._queue.file_id() != self._file

    def send(self) -> None:
        """Send what is queued. Raises any error of the tracker: what is left is sent next time."""
        while events := self._queue.read(self._position):
            for kind, group in groupby(events, lambda each: each[0].get("event")):
                batch = list(group)
                if kind:
                    self._send_batch(kind, [event for event, _ in batch])
                self._position = batch[-1][1]
                self._confirm()

    def close(self) -> None:
        """Disconnect. A training that ended without saying so was killed. Raises as `send` does."""
        if not self._tracker:
            return
        if not self.progress.is_finished:
            self._tracker.finish(INTERRUPTED, time.time())
        self._tracker.close()
        self._tracker = None
        self.progress.sent = self._position
        self._confirm()

    def fail(self, error: BaseException) -> None:
        """Note an error that `send` or `close` raised, and connect anew next time."""
        self._tracker = None
        self._position = self.progress.sent
        self.progress.error = _reason(error)
        self._save()

    def _send_batch(self, kind: str, events: Sequence[Event]) -> None:
        """Send events of one kind; if they are rejected, each alone."""
        tracker = self._connected()
        try:
            self._call(tracker, kind, events)
        except RejectedError as error:
            for event in events if len(events) > 1 else ():
                self._send_batch(kind, [event])
            if len(events) == 1:
                self.progress.rejected = first_line(error)
                logger.warning("%s rejected: %s", self._name, error)

    def _call(self, tracker: Tracker, kind: str, events: Sequence[Event]) -> None:
        if kind == "metrics":
            tracker.log_metrics([Metrics(*(each[k] for k in Metrics._fields)) for each in events])
            return
        for event in events:
            if kind == "start":
                self.progress.is_finished = False
                parameters = {k: Parameter(*each) for k, each in event["parameters"].items()}
                tracker.log_parameters(parameters, event["tags"])
            elif kind == "finish":
                self.progress.is_finished = True
                tracker.finish(event["status"], event["time"])
            elif kind == "file" and (path := self._queue.folder.parent / event["path"]).exists():
                tracker.log_file(path, event["name"])

    def _connected(self) -> Tracker:
        if self._tracker is None:
            first = next(event for event in self._queue.read_all() if "id" in event)
            run = TrackedRun(
                first["id"],
                first["name"],
                first["group"],
                first["time"],
                self._queue.folder.parent,
                self.progress.memory,
            )
            self._tracker = self._make_tracker(run)
            self.progress.url = self._tracker.url
            # What the tracker remembers must not be lost: it would make a second run.
            self._save()
        return self._tracker

    def _confirm(self) -> None:
        if self._tracker is None or self._tracker.is_synchronous:
            self.progress.sent = self._position
        self.progress.error = None
        self._save()

    def _save(self) -> None:
        """Write the progress if it has changed, but not into the folder of another run."""
        content = asdict(self.progress)
        if content != self._saved and not self.is_moved:
            write_file(progress_path(self._queue, self._name), json.dumps(content, indent=2))
            self._saved = json.loads(json.dumps(content))


def _reason(error: BaseException) -> str:
    """Return why sending failed: what the system said, perhaps behind several other errors."""
    first: BaseException = error
    while cause := first.__cause__ or first.__context__:
        first = cause
    system = first.strerror if isinstance(first, OSError) else None
    return (system or f"{type(error).__name__}: {first_line(error)}")[:_MAX_CHARACTERS]


def send_rest(queue: EventQueue, name: str, make_tracker: MakeTracker) -> tuple[int, Progress]:
    """Send to one tracker what it has not got, in this process.

    Args:
        queue: The events of a run.
        name: The tracker's name.
        make_tracker: Connects to it.

    Returns:
        How many events were left, and the progress, which says whether sending failed.
    """
    with lock_delivery(queue, name):
        left, delivery = count_unsent(queue, name), Delivery(queue, name, make_tracker)
        if left:
            try:
                delivery.send()
                delivery.close()
            except Exception as error:
                delivery.fail(error)
    return left, delivery.progress


def count_unsent(queue: EventQueue, name: str) -> int:
    """Return the number of events that the tracker `name` has not got."""
    return queue.count_from(read_progress(queue, name).sent)


def find_queues(folder: str | Path) -> Iterator[EventQueue]:
    """Yield the queues of the run in a folder, and of the runs below it, such as seeds."""
    for path in sorted(Path(folder).rglob("tracking/events.jsonl")):
        yield EventQueue(path.parent.parent)


def trackers_of(queue: EventQueue) -> list[str]:
    """Return the names of the trackers that a run was started with, the last time."""
    names: list[str] = []
    for event in queue.read_all():
        names = event.get("trackers", names)
    return names


def lock_delivery(queue: EventQueue, name: str) -> Any:
    """Return a context manager within which no other process sends to the tracker `name`."""
    path = queue.folder / f".{name}.lock"
    return locked(path, f"{queue.folder} ({name})", wait=True)
