"""The events of a run: a file of JSON lines that only grows, in the run's folder.

The training appends to it. Each tracker is sent all of it, from wherever it was left off, so a
tracker that is down, or that was added later, misses nothing.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# In a run's folder.
FOLDER = "tracking"
_FILE = "events.jsonl"
# How much of the file is read at once.
_BYTES = 1 << 20

Event = dict[str, Any]


class EventQueue:
    """The events of one run. Only one process appends; others read meanwhile."""

    def __init__(self, run_dir: str | Path) -> None:
        """Prepare to read or to append; the file need not exist."""
        self.folder = Path(run_dir) / FOLDER
        self.path = self.folder / _FILE
        # What a full disk has not taken yet: it is written before the next event.
        self._unwritten = b""

    def append(self, event: Mapping[str, Any]) -> None:
        """Append an event of JSON values and NumPy's numbers.

        Raises OSError if it can't be written yet; the next call tries again.
        """
        is_continued = bool(self._unwritten)
        self._unwritten += json.dumps(event, default=float).encode() + b"\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that a killed process leaves at most half a line.
        with self.path.open("ab+", buffering=0) as file:
            if not is_continued and file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    # End the half line of a killed process: no reader can parse it.
                    self._unwritten = b"\n" + self._unwritten
            while self._unwritten:
                # A full disk may take a part.
                self._unwritten = self._unwritten[file.write(self._unwritten) :]

    def file_id(self) -> int | None:
        """Return a number that is another one if another file has the path; None without a file."""
        try:
            return self.path.stat().st_ino
        except OSError:
            return None

    def read(self, start: int = 0) -> list[tuple[Event, int]]:
        """Return the next whole events, some of them, each with the position after it.

        Args:
            start: Position in bytes: 0, or one that was returned.
        """
        if not self.path.is_file():
            return []
        events = []
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file.readlines(_BYTES):
                if not line.endswith(b"\n"):
                    break
                start += len(line)
                events.append((_parse(line), start))
        return events

    def read_all(self, start: int = 0) -> Iterator[Event]:
        """Yield all whole events from a position on."""
        while events := self.read(start):
            start = events[-1][1]
            yield from (event for event, _ in events)

    def count_from(self, start: int) -> int:
        """Return the number of events after a position."""
        return sum(1 for event in self.read_all(start) if event)


def _parse(line: bytes) -> Event:
    """Return the event of a line; {} for what a crash made of one."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
