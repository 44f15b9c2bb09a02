"""What a run shows: a summary, a progress bar, a line per evaluation, history.csv, curves.svg."""

import csv
import io
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from library.errors import printable, reason_of
from library.figures.training_curves import write_curves
from library.files import write_file
from library.logging import progress_bar
from library.messages import counted, counted_classes
from library.training.distribution import Devices
from library.training.listeners import Evaluation, Listener, Run
from library.training.parts import Parts, RunInputs

logger = logging.getLogger(__name__)

# With cached features an epoch takes less time than writing a file does.
_SECONDS_BETWEEN_WRITES = 1
_SECONDS_BETWEEN_MEASUREMENTS = 1
# Less is the time that handing over a batch takes.
_SHOWN_WAIT_SHARE = 0.1


def run_summary(parts: Parts, inputs: RunInputs, classes: Sequence[str], devices: Devices) -> str:
    """Return one line about a run.

    Args:
        parts: What is trained.
        inputs: The training and the validation split.
        classes: The class names.
        devices: What it is trained on.
    """
    network, (training, validation) = parts.network, inputs
    rates = ""
    if parts.head_learning_rate:
        rates = (
            f"learning rate {parts.learning_rate:g}, {parts.head_learning_rate:g} for the head, "
        )
    return (
        f"{network.name}: {network.count_params():,} parameters; {counted_classes(len(classes))}, "
        f"{training.examples:,} training and {counted(validation.examples, 'validation image')}; "
        f"{counted(training.batches_per_epoch, 'step')} per epoch, "
        f"batch size {training.batch_size}, {rates}on {devices.describe(training.batch_size)}"
    )


class ProgressBar(Listener):
    """Shows images, images per second and the time left; in a file of logs, once a minute."""

    def on_start(self, run: Run) -> None:
        """Show the bar."""
        super().on_start(run)
        self._bar = progress_bar(
            run.timetable.total_images,
            has_shares=False,  # each evaluation is a line already
            initial=run.timetable.images(run.state),
            unit=" images",
            unit_scale=True,
            smoothing=0.05,
        )
        self._show_best()

    def on_epoch_start(self, epoch: int) -> None:
        """Show the epoch."""
        self._bar.set_description_str(f"epoch {epoch + 1}/{self.run.plan.train_epochs}")

    def on_steps(self, count: int, losses: tf.Tensor) -> None:
        """Move on; the total changes when a time budget shortens the training."""
        self._bar.total = self.run.timetable.total_images
        self._bar.update(self.run.timetable.images(self.run.state) - self._bar.n)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Show the best value so far."""
        self._show_best()

    def on_finish(self, error: BaseException | None) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show_best(self) -> None:
        if best := self.run.state.best:
            self._bar.set_postfix_str(f"best {best['value']:.4f} (epoch {best['epoch']})")


class LogLines(Listener):
    """Logs each evaluation and the end."""

    def on_start(self, run: Run) -> None:
        """Begin to measure how long the training waits for input."""
        super().on_start(run)
        self._measured_at = time.perf_counter()

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Log losses, accuracies and the metric that selects the best snapshot."""
        row, metric = evaluation.row, self.run.plan.monitor.metric
        names = dict.fromkeys(("accuracy", metric)) if metric != "loss" else ["accuracy"]
        others = "  ".join(f"{printable(each)} {row[f'validation_{each}']:.4f}" for each in names)
        share, now = 0.0, time.perf_counter()
        # Handing over a batch is no small part of an epoch of milliseconds, as on cached features.
        if now - self._measured_at >= _SECONDS_BETWEEN_MEASUREMENTS:
            share = self.run.throughput.input_wait_share("log lines") or 0.0
            self._measured_at = now
        waiting = f"  {share:.0%} waiting for input" if share >= _SHOWN_WAIT_SHARE else ""
        logger.info(
            f"epoch {row['epoch']}/{self.run.plan.train_epochs}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.4f}  validation loss {row['validation_loss']:.4f}  "
            f"{others}  {row['images_per_second']:,.0f} images/s{waiting}"
            f"{'  best' if evaluation.is_best else ''}"
        )

    def on_finish(self, error: BaseException | None) -> None:
        """Log early stopping, and the time spent waiting for input if it was measured."""
        if reason := self.run.state.early_stopping.stopped:
            logger.info(f"Stopped early: {reason}")
        share = self.run.throughput.input_wait_share("whole run")
        if share is not None and error is None:
            logger.info(f"{100 * share:.1f} % of training time was spent waiting for input")


class History(Listener):
    """Writes `history.csv`, one row per evaluation, and `curves.svg`, the same as a figure."""

    def on_start(self, run: Run) -> None:
        """Write at the first evaluation."""
        super().on_start(run)
        self._written_at, self._has_unwritten = -math.inf, False

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Write history.csv, unless that was done a moment ago."""
        self._has_unwritten = True
        if time.monotonic() - self._written_at >= _SECONDS_BETWEEN_WRITES:
            self._write()

    def _write(self) -> None:
        self._written_at, self._has_unwritten = time.monotonic(), False
        path = self.run.paths.run_dir / "history.csv"
        try:
            # The whole file each time: after a resume it must not hold rows of an undone future.
            write_file(path, _to_csv(self.run.state.rows))
        except OSError as error:
            # The checkpoint has the rows too: the next evaluation tries again with all of them.
            logger.warning(f"{path} could not be written ({reason_of(error)})")

    def on_finish(self, error: BaseException | None) -> None:
        """Write what history.csv lacks, and curves.svg."""
        if self._has_unwritten:
            self._write()
        best_epoch = self.run.state.best["epoch"] if self.run.state.best else None
        try:
            write_curves(self.run.paths.run_dir / "curves.svg", self.run.state.rows, best_epoch)
        except OSError as error:
            logger.warning(f"curves.svg could not be written ({reason_of(error)})")


def _to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
