"""The queue on disk and what sends it: whole lines, in order, each once, whatever fails."""

import errno
import json
from io import FileIO
from pathlib import Path

import pytest

from library.tracking.delivery import Delivery, count_unsent, read_progress, send_rest
from library.tracking.event_queue import EventQueue
from library.tracking.tracker import INTERRUPTED, RejectedError, Tracker

START = {
    "event": "start",
    "time": 1.0,
    "id": "abc",
    "name": "run",
    "group": None,
    "step": 0,
    "trackers": ["recorder"],
    "parameters": {"lr": [0.1, "default"]},
    "tags": {},
}
FINISH = {"event": "finish", "status": "finished", "time": 9.0}


def metrics(step):
    return {"event": "metrics", "time": float(step), "step": step, "values": {"loss": 1 / step}}


class Recorder(Tracker):
    """Remembers on `server` what arrives, and fails when it is told to."""

    server: list
    fails_at: set
    rejected = frozenset()

    def log_parameters(self, parameters, tags):
        self._record(f"lr {parameters['lr'].value}")

    def log_metrics(self, rows):
        for row in rows:
            if row.step in self.rejected:
                raise RejectedError(f"step {row.step}")
        for row in rows:
            self._record(row.step)

    def log_file(self, path, name):
        self._record(f"{name}: {path.read_text()}")

    def finish(self, status, ended):
        self._record(status)

    def _record(self, what):
        if len(self.server) in self.fails_at:
            self.fails_at.discard(len(self.server))
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        self.server.append(what)


@pytest.fixture
def recorder():
    return type("Fresh", (Recorder,), {"server": [], "fails_at": set()})


@pytest.fixture
def queue(tmp_path):
    return EventQueue(tmp_path)


def fill(queue, *events):
    for event in events:
        queue.append(event)


def test_events_arrive_in_order(queue, recorder, tmp_path):
    (tmp_path / "report.html").write_text("page")
    file = {"event": "file", "path": "report.html", "name": "report"}
    missing = {"event": "file", "path": "none.html", "name": "none"}
    fill(queue, START, metrics(1), metrics(2), file, missing, FINISH)
    sent, progress = send_rest(queue, "recorder", recorder)
    assert recorder.server == ["lr 0.1", 1, 2, "report: page", "finished"]
    assert (sent, progress.error, count_unsent(queue, "recorder")) == (6, None, 0)


def test_each_tracker_has_its_own_position(queue, recorder):
    fill(queue, START, metrics(1))
    other = type("Other", (Recorder,), {"server": [], "fails_at": set()})
    send_rest(queue, "recorder", recorder)
    fill(queue, metrics(2))
    send_rest(queue, "recorder", recorder)
    send_rest(queue, "other", other)
    assert [each for each in recorder.server if each != INTERRUPTED] == ["lr 0.1", 1, 2]
    assert other.server == ["lr 0.1", 1, 2, INTERRUPTED]


@pytest.mark.parametrize("cut", range(1, 8))
def test_half_a_line_is_never_sent(queue, recorder, cut):
    """A writer that was killed within a line, and the one that follows it."""
    fill(queue, START)
    line = json.dumps(metrics(1)).encode() + b"\n"
    with queue.path.open("ab") as file:
        file.write(line[: cut * len(line) // 8])
    assert [event["event"] for event, _ in queue.read()] == ["start"]
    fill(EventQueue(queue.folder.parent), metrics(2), FINISH)
    send_rest(queue, "recorder", recorder)
    assert recorder.server == ["lr 0.1", 2, "finished"]


def test_failure_at_each_event_sends_the_rest_later(queue, recorder):
    fill(queue, START, *(metrics(step) for step in range(1, 5)), FINISH)
    expected = ["lr 0.1", 1, 2, 3, 4, "finished"]
    for fails_at in range(len(expected)):
        recorder.server.clear()
        recorder.fails_at.add(fails_at)
        name = f"tracker_{fails_at}"
        assert send_rest(queue, name, recorder)[1].error == "Connection refused"
        assert count_unsent(queue, name) > 0
        assert send_rest(queue, name, recorder)[1].error is None
        # What was sent of a batch comes again, in order; the trackers recognize it.
        assert list(dict.fromkeys(recorder.server)) == expected


def test_killed_before_the_progress_is_written(queue, recorder, monkeypatch):
    """What was sent, but not noted, is sent again, to the same run."""
    fill(queue, START, metrics(1))
    delivery = Delivery(queue, "recorder", recorder)
    monkeypatch.setattr(delivery, "_confirm", lambda: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        delivery.send()
    assert read_progress(queue, "recorder").sent == 0
    monkeypatch.undo()
    send_rest(queue, "recorder", recorder)
    assert recorder.server == ["lr 0.1", "lr 0.1", 1, INTERRUPTED]


def test_rejected_event_is_left_out(queue, recorder):
    recorder.rejected = {2}
    fill(queue, START, *(metrics(step) for step in range(1, 4)), FINISH)
    _, progress = send_rest(queue, "recorder", recorder)
    assert recorder.server == ["lr 0.1", 1, 3, "finished"]
    assert (progress.rejected, progress.error) == ("step 2", None)


def test_asynchronous_tracker_confirms_at_close(queue, recorder):
    recorder.is_synchronous = False
    fill(queue, START, metrics(1), FINISH)
    delivery = Delivery(queue, "recorder", recorder)
    delivery.send()
    assert count_unsent(queue, "recorder") == 3
    delivery.close()
    assert count_unsent(queue, "recorder") == 0


def test_full_disk_keeps_events_until_there_is_space(queue, monkeypatch):
    fill(queue, START)
    free = [3, 0, 0]

    class Disk(FileIO):
        def write(self, data):
            if not free:
                return super().write(data)
            if size := free.pop(0):
                return super().write(data[:size])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, mode, **_: Disk(path, mode.replace("b", "")))
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            queue.append(metrics(1))
    queue.append(metrics(2))
    monkeypatch.undo()
    assert [event.get("step") for event, _ in queue.read()] == [0, 1, 1, 2]


def test_run_that_was_moved_away(recorder, tmp_path):
    """`--resume never` in a process that still sends the earlier run of the folder."""
    folder = tmp_path / "current"
    queue = EventQueue(folder)
    fill(queue, START, metrics(1))
    delivery = Delivery(queue, "recorder", recorder)
    delivery.send()
    folder.rename(tmp_path / "current.1")
    assert delivery.is_moved
    fill(queue, {**START, "id": "def"}, *(metrics(step) for step in range(1, 9)))
    delivery.close()
    assert read_progress(queue, "recorder").sent == 0
    assert send_rest(queue, "recorder", recorder)[0] == 9


def test_damaged_line_is_skipped(queue, recorder):
    fill(queue, START)
    with queue.path.open("ab") as file:
        file.write(b"\0" * 20 + b"\n")
    fill(queue, FINISH)
    send_rest(queue, "recorder", recorder)
    assert recorder.server == ["lr 0.1", "finished"]
