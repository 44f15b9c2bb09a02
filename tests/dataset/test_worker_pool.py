import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from library.dataset import worker_pool
from library.dataset.encode_record import EncodeRecord, Task
from library.dataset.images import ImageOptions, UnusableImageError
from library.dataset.label_conflicts import image_key
from library.dataset.locations import (
    FileLocation,
    MemoryLocation,
    NoLocation,
    RangeLocation,
    prefetch,
)
from library.dataset.records import read_frames, read_record
from library.dataset.worker_pool import WorkerPool, available_cores
from library.errors import UnreachableError, UserError
from tests.conftest import ROOT
from tests.dataset.test_images import colorful, saved

pytestmark = pytest.mark.usefixtures("real_workers")
WORKER = [sys.executable, "-W", "ignore", "-m", "library.dataset.worker_process"]


@dataclass(frozen=True)
class Act:
    """Does what the item says, instead of a decoder."""

    def __call__(self, item):
        if item == "abort":
            os.abort()
        if item == "exit":
            os._exit(3)
        if item == "hang":
            while True:
                time.sleep(1)
        if item == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if item == "half":
            signal.setitimer(signal.ITIMER_REAL, 0)
            reply = pickle.dumps([(True, bytes(1000))], protocol=5)
            for pipe in (3, 4, 5, 6, 7):
                with contextlib.suppress(OSError):
                    os.write(pipe, reply[:500])
            time.sleep(60)
        if item == "slow":
            time.sleep(0.3)
        if item == "eat":
            return len(bytearray(3 << 30))
        if item == "unplugged":
            raise UnreachableError("gs://b/x can't be read: reset")
        if item == "raise":
            raise ValueError("two\nlines")
        return item * 2


def results(items, batch=3, max_workers=2, **options):
    batches = [items[first : first + batch] for first in range(0, len(items), batch)]
    with WorkerPool(Act(), max_workers, **options) as pool:
        pool.grow(max_workers)
        return [each for _, answers in pool.map(batches) for each in answers]


@dataclass
class Ahead:
    """Returns the batch that was announced."""

    batch: tuple = ()

    def __call__(self, item):
        return self.batch

    def prefetch(self, items):
        self.batch = tuple(items)


def test_batch_is_prefetched_before_its_items():
    with WorkerPool(Ahead(), 1) as pool:
        batches = list(pool.map([(1, 2), (3,)]))
    assert batches == [((1, 2), [(True, (1, 2))] * 2), ((3,), [(True, (3,))])]


def test_results_keep_order_of_items():
    assert results(list(range(200))) == [(True, 2 * each) for each in range(200)]


def test_broken_item_costs_only_itself():
    items = [1, "abort", 3, "eat", 5, "raise", 7, "exit", "exit"]
    assert results(items, memory_bytes=1 << 30) == [
        (True, 2),
        (False, "makes the decoder crash (SIGABRT)"),
        (True, 6),
        (False, "needs too much memory to decode"),
        (True, 10),
        (False, "two lines"),
        (True, 14),
        (False, "makes the decoder crash (exit code 3)"),
        (False, "makes the decoder crash (exit code 3)"),
    ]


def test_hanging_item_times_out():
    answers = results([1, "hang", 3], seconds=1)
    assert answers == [(True, 2), (False, "takes more than 1 s to decode"), (True, 6)]


def test_stopped_process_is_replaced(monkeypatch):
    monkeypatch.setattr(worker_pool, "_GRACE_SECONDS", 0.1)
    answers = results([1, "stop", 3], seconds=0.5)
    assert answers == [(True, 2), (False, "takes more than 0.5 s to decode"), (True, 6)]


def test_half_an_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(worker_pool, "_GRACE_SECONDS", 0.1)
    answers = results([1, "half", 3], seconds=0.2)
    assert answers == [(True, 2), (False, "takes more than 0.2 s to decode"), (True, 6)]


def test_process_that_cannot_be_killed_is_abandoned(monkeypatch):
    """As one that hangs in the kernel."""
    kill, abandoned = subprocess.Popen.kill, []
    monkeypatch.setattr(worker_pool, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(worker_pool, "_END_SECONDS", 0.1)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda self: abandoned.append(self))
    try:
        with WorkerPool(Act(), 1, seconds=0.2) as pool:
            assert pool.apply("stop") == (False, "takes more than 0.2 s to decode")
            assert pool.apply(2) == (True, 4)
    finally:
        for each in set(abandoned):
            kill(each)
            each.wait()
    assert abandoned


def test_process_stopped_by_others_loses_nothing(monkeypatch):
    monkeypatch.setattr(worker_pool, "_GRACE_SECONDS", 0.1)
    with WorkerPool(Act(), 1, seconds=0.5) as pool:
        assert pool.apply(1) == (True, 2)
        os.kill(pool.processes[0].process.pid, signal.SIGSTOP)
        assert pool.apply(2) == (True, 4)


def test_slow_batch_is_not_overdue():
    answers = exchange((Act(), 1 << 30, 60), ["slow"] * 5, [1])
    assert answers[1:] == ["alive", [(True, "slowslow")] * 5, [(True, 2)]]


def test_network_failure_ends_map():
    with pytest.raises(UnreachableError, match=r"gs://b/x can't be read: reset"):
        results([1, 2, "unplugged", 4])


def test_killed_worker_loses_nothing():
    with WorkerPool(Act(), 1) as pool:
        answers = []
        for _, each in pool.map([number] for number in range(50)):
            answers += each
            if len(answers) == 10:
                os.kill(pool.processes[0].process.pid, signal.SIGKILL)
    assert answers == [(True, 2 * number) for number in range(50)]


def test_map_takes_batches_only_as_needed():
    taken = []

    def batches():
        for number in range(1000):
            taken.append(number)
            yield [number]

    with WorkerPool(Act(), 1) as pool:
        next(pool.map(batches()))
        assert len(taken) < 10


def test_leaving_early_ends_processes():
    pool = WorkerPool(Act(), 2)
    next(pool.map([[1], [2]]))
    process = pool.processes[0].process
    pool.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert process.poll() is not None


def test_failing_start_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no such luck')")
    (tmp_path / "pickle.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("library.dataset.worker_pool._ROOT", tmp_path)
    with WorkerPool(Act(), 1) as pool, pytest.raises(UserError, match="can't start: "):
        list(pool.map([[1]]))


def exchange(*messages):
    """Return what a worker process answers to messages, after which its input ends."""
    content = b"".join(map(pickle.dumps, messages))
    run = subprocess.run(WORKER, input=content, capture_output=True, cwd=ROOT, check=True)
    answers, rest = [], run.stdout
    while rest:
        answers.append(pickle.loads(rest))
        rest = rest[len(pickle.dumps(answers[-1], protocol=5)) :]
    return answers


def test_worker_ends_with_its_input():
    answers = exchange((Act(), 1 << 30, 60), [1, 2], [], ["raise"])
    assert answers == ["ready", [(True, 2), (True, 4)], [], [(False, "two lines")]]


def test_worker_does_not_import_tensorflow():
    code = (
        "import sys, library.dataset.worker_process, library.dataset.encode_record; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_available_cores():
    assert 1 <= available_cores() <= os.cpu_count()


@pytest.fixture
def task(tmp_path):
    (tmp_path / "1.png").write_bytes(saved(colorful(), "PNG"))
    return Task(FileLocation(str(tmp_path / "1.png")), 3, "cat", "cat/1.png")


def test_encode_record_frames_file(task):
    function = pickle.loads(pickle.dumps(EncodeRecord(ImageOptions(max_edge=32))))
    framed, key, notes = function(task)
    assert not notes
    ((_, content),) = read_frames(io.BytesIO(framed), "here")
    record = read_record(content, "here")
    assert key == image_key(record.encoded, "cat")
    assert (record.label, record.text, record.filename) == (3, "cat", "cat/1.png")
    assert (record.width, record.height) == (32, 21)


def test_encode_record_names_reason(task, tmp_path):
    function = EncodeRecord(ImageOptions(max_pixels=100))
    with pytest.raises(UnusableImageError, match=r"\(max_megapixels\)$"):
        function(task)
    (tmp_path / "1.png").write_bytes(b"text")
    with pytest.raises(UnusableImageError, match=r"TIFF or WebP image$"):
        function(task)
    (tmp_path / "1.png").unlink()
    with pytest.raises(UnusableImageError, match="No such file or directory"):
        function(task)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="only on some systems")
def test_prefetch_advises_local_files_and_leaves_errors_to_reading(tmp_path, monkeypatch):
    advised, advise = [], os.posix_fadvise

    def record(handle, *range_and_advice):
        advised.append(range_and_advice[:2])
        advise(handle, *range_and_advice)  # Fails for a pipe.

    monkeypatch.setattr(os, "posix_fadvise", record)
    path, pipe = tmp_path / "1.jpg", tmp_path / "pipe"
    path.write_bytes(bytes(100))
    os.mkfifo(pipe)
    files = [FileLocation(str(each)) for each in (path, tmp_path / "missing", pipe, "a\0b")]
    prefetch([*files, RangeLocation(str(path), 10, 20), NoLocation("no"), MemoryLocation(b"")])
    assert advised == [(0, 0), (0, 0), (10, 20)]
