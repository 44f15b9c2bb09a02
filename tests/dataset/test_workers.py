import os
import signal
import time
from dataclasses import dataclass

import pytest

from library.dataset.worker_pool import WorkerPool
from library.errors import UnreachableError, UserError


@dataclass(frozen=True)
class Act:
    """Does what the item says; in the place of a decoder."""

    def __call__(self, item):
        if item == "abort":
            os.abort()
        if item == "exit":
            os._exit(3)
        if item == "hang":
            while True:
                time.sleep(1)
        if item == "eat":
            return len(bytearray(3 << 30))
        if item == "unplugged":
            raise UnreachableError("gs://b/x can't be read: reset")
        if item == "raise":
            raise ValueError("two\nlines")
        return item * 2


def results(items, batch=3, most=2, **options):
    batches = [items[first : first + batch] for first in range(0, len(items), batch)]
    with WorkerPool(Act(), most, **options) as workers:
        workers.grow(most)
        return [each for _, answers in workers.map(batches) for each in answers]


def test_results_come_in_the_order_of_the_items():
    assert results(list(range(200))) == [(True, 2 * each) for each in range(200)]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("abort", "makes the decoder crash (SIGABRT)"),
        ("exit", "makes the decoder crash (exit code 3)"),
        ("eat", "needs too much memory to decode"),
        ("raise", "two lines"),
    ],
)
def test_what_breaks_a_decoder_costs_that_item_alone(item, reason):
    assert results([1, item, 3, 4, item, 6], memory_bytes=1 << 30) == [
        (True, 2),
        (False, reason),
        (True, 6),
        (True, 8),
        (False, reason),
        (True, 12),
    ]


def test_a_network_that_fails_ends_all_and_is_no_items_fault():
    with pytest.raises(UnreachableError, match=r"gs://b/x can't be read: reset"):
        results([1, 2, "unplugged", 4])


def test_what_hangs_is_given_up():
    answers = results([1, "hang", 3], seconds=0.5)
    assert answers == [(True, 2), (False, "takes more than 0.5 s to decode"), (True, 6)]


def test_a_worker_killed_from_outside_loses_nothing():
    with WorkerPool(Act(), 1) as workers:
        answers = []
        for _, each in workers.map([number] for number in range(50)):
            answers += each
            if len(answers) == 10:
                os.kill(workers.processes[0].process.pid, signal.SIGKILL)
    assert answers == [(True, 2 * number) for number in range(50)]


def test_batches_are_taken_only_as_they_are_needed():
    taken = []

    def batches():
        for number in range(1000):
            taken.append(number)
            yield [number]

    with WorkerPool(Act(), 1) as workers:
        next(workers.map(batches()))
        assert len(taken) < 10


def test_leaving_early_ends_the_processes():
    workers = WorkerPool(Act(), 2)
    next(workers.map([[1], [2]]))
    process = workers.processes[0].process
    workers.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert process.poll() is not None


def test_a_worker_that_can_not_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('no such luck')")
    (tmp_path / "pickle.py").write_text("raise ImportError('no such luck')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("library.dataset.worker_pool._ROOT", tmp_path)
    with WorkerPool(Act(), 1) as workers, pytest.raises(UserError, match="can't start: "):
        list(workers.map([[1]]))
