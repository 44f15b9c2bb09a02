"""Queues what happens in a training for its trackers; this costs the training a line in a file."""

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from library.errors import StoppedError, reason_of
from library.tracking.delivery import read_progress
from library.tracking.event_queue import EventQueue
from library.tracking.facts import find_git_state, split_experiment
from library.tracking.tracker import FAILED, FINISHED, INTERRUPTED, Parameter
from library.training.listeners import Evaluation, Listener, Run

logger = logging.getLogger(__name__)

# What depends on the machine, not on the training.
_SPEED = "images_per_second"
_FILES_AT_END = ("history.csv", "curves.svg")


@dataclass(frozen=True)
class Tracking:
    """What to report of a run, and to which trackers.

    Attributes:
        trackers: Names of the trackers.
        parameters: Setting → value and source.
        tags: Facts about the run.
        source_dir: Folder whose git commit is recorded.
        upload_snapshot: Whether to report the best snapshot at the end.
    """

    trackers: Sequence[str]
    parameters: Mapping[str, Parameter]
    tags: Mapping[str, str]
    source_dir: Path
    upload_snapshot: bool = False


class TrackingListener(Listener):
    """Queues settings, metrics and files of a run on disk, for a process that sends them."""

    def __init__(self, tracking: Tracking, send: Callable[[Path, Sequence[str]], None]) -> None:
        """Prepare; nothing is written yet.

        Args:
            tracking: What to report.
            send: Sends the events of a run's folder to trackers from now on, beside the training.
        """
        self._tracking, self._send = tracking, send
        self._has_warned = False
        # Trackers whose URL, and whose first error, was logged.
        self._shown: set[str] = set()
        self._failed: set[str] = set()
        # Errors of an earlier process.
        self._old_errors: dict[str, str | None] = {}

    def on_start(self, run: Run) -> None:
        """Queue the settings, and start to send."""
        super().on_start(run)
        folder, names = run.paths.run_dir, self._tracking.trackers
        self._queue = EventQueue(folder)
        run_id = self._read_queue(run.state.step) or uuid.uuid4().hex
        group, name = split_experiment(folder)
        self._append(
            "start",
            id=run_id,
            name=name,
            group=group,
            step=run.state.step,
            trackers=list(names),
            parameters=self._tracking.parameters,
            tags={**self._tracking.tags, **find_git_state(self._tracking.source_dir)},
        )
        for each in run.paths.texts:
            self._append("file", path=each, name=each)
        self._old_errors = {each: read_progress(self._queue, each).error for each in names}
        try:
            self._send(folder, names)
        except OSError as error:
            self._warn(f"nothing can be sent to {', '.join(names)} ({reason_of(error)})")

    def on_steps(self, count: int, losses: tf.Tensor) -> None:
        """Queue the loss, the learning rate and the throughput every `save_summary_steps`."""
        step, every = self.run.state.step, self.run.plan.save_summary_steps
        if step // every == (step - count) // every:
            return
        values = {
            "loss": float(losses[-1]),
            **self.run.learning_rates(),
            _SPEED: self.run.throughput.images_per_second("trackers"),
        }
        self._append_metrics(step, {f"step/{name}": value for name, value in values.items()})

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Queue the metrics, and those of the best snapshot if this is the best."""
        row, validation = evaluation.row, evaluation.validation
        rates = {k: row[k] for k in ("learning_rate", "head_learning_rate", _SPEED) if k in row}
        values = {
            "epoch": row["epoch"],
            **{f"train/{name}": value for name, value in {**evaluation.training, **rates}.items()},
            **{f"validation/{name}": value for name, value in validation.items()},
        }
        if evaluation.is_best:
            values |= {f"best/{name}": value for name, value in validation.items()}
            values["best/epoch"] = row["epoch"]
        self._append_metrics(row["step"], values)
        self._report()

    def on_finish(self, error: BaseException | None) -> None:
        """Queue the curves, the best snapshot if it is wanted, and how the run ended."""
        folder = self.run.paths.run_dir
        for name in _FILES_AT_END:
            self._append("file", path=name, name=name)
        if self._tracking.upload_snapshot and error is None:
            self._append("file", path=os.path.relpath(self.run.paths.best, folder), name="best")
        self._append("finish", status=_status_of(error))
        self._report()

    def _read_queue(self, step: int) -> str | None:
        """Return the run's ID if it was tracked before, and note what was queued from a step on."""
        # A resumed run repeats steps that it made after its checkpoint, before it was killed.
        self._queued: dict[tuple[int, tuple[str, ...]], Mapping[str, float]] = {}
        run_id = None
        try:
            for event in self._queue.read_all():
                run_id = event.get("id", run_id)
                if event.get("event") == "metrics" and event["step"] >= step:
                    self._queued[_key(event["step"], event["values"])] = event["values"]
        except OSError as error:
            self._warn(f"{self._queue.path} could not be read ({reason_of(error)})")
        return run_id

    def _append_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Queue metrics, unless the same were queued before the run was resumed."""
        before = self._queued.pop(_key(step, values), None)
        if before is None or any(
            before[name] != value for name, value in values.items() if not name.endswith(_SPEED)
        ):
            self._append("metrics", step=step, values=values)

    def _append(self, kind: str, **content: Any) -> None:
        try:
            self._queue.append({"event": kind, "time": time.time(), **content})
        except OSError as error:
            path, reason = self._queue.path, reason_of(error)
            self._warn(f"{path} could not be written ({reason}); what is new waits in memory")

    def _report(self) -> None:
        """Log once where a tracker shows the run, and once that it does not answer."""
        for name in self._tracking.trackers:
            progress = read_progress(self._queue, name)
            if progress.url and name not in self._shown:
                logger.info(f"{name}: {progress.url}")
                self._shown.add(name)
            is_new = progress.error not in (None, self._old_errors.get(name))
            if is_new and name not in self._failed:
                logger.warning(
                    f"{name} can't be reached ({progress.error}); the training continues, and what "
                    "is not sent yet is kept"
                )
                self._failed.add(name)

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            logger.warning(f"{text}; the training continues")
            self._has_warned = True


def _status_of(error: BaseException | None) -> str:
    """Return how a training ended; an error that ends it on purpose says so by `tracked_status`."""
    if isinstance(error, (StoppedError, KeyboardInterrupt)):
        return INTERRUPTED
    return getattr(error, "tracked_status", FAILED) if error else FINISHED


def _key(step: int, values: Mapping[str, float]) -> tuple[int, tuple[str, ...]]:
    return step, tuple(values)
