"""What a run tells while it trains: lines and a bar on stderr, history.csv, TensorBoard."""

import csv
import io
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from library.errors import reason_of
from library.figures.contact_sheet import draw_batch
from library.figures.kernels import first_kernels, kernel_grid
from library.files import write_file
from library.logging import report
from library.training.tensorboard import Summaries

# Input images on TensorBoard's sheet.
_SHOWN = 32
_KERNEL_PIXELS = 24


class RunLogger:
    """Passes on what happens in a run. With `is_told` False (not the chief) it only counts.

    `rows` are those of the history so far; `images` are how many the whole training has and how
    many of it are done. `next_batches` is called for the batches that come next.
    """

    def __init__(self, paths, plan, rows, images, next_batches, report, *, is_told=True):
        self._settings, self._classes = paths.settings, paths.classes
        self._plan = plan
        self._next_batches = next_batches
        self._report = report
        self._is_told = is_told
        self._has_introduced = False
        self._history = History(paths.run_dir, rows, writes=is_told)
        self._progress = Progress(*images, is_shown=is_told)

    def start_epoch(self, epoch, best):
        """Show which epoch it is, counted from 0, and the best snapshot's metrics, if there is."""
        words = f"best {best['value']:.4f} (epoch {best['epoch']})" if best else None
        self._progress.describe(f"epoch {epoch + 1}/{self._plan.train_epochs}", words)

    def add_images(self, images, waited, total):
        """Count images trained on and seconds waited for them (None: nobody knows).

        `total` is of the whole training.
        """
        self._progress.expect(total)
        self._progress.add(images, waited)

    def add_steps(self, step, count, losses, rate):
        """Hear of the last `count` steps, the last of which is `step`; `rate` gives their rate."""
        every = self._plan.save_summary_steps
        if step // every == (step - count) // every:
            return
        scalars = {
            "loss": float(losses[-1]),
            "learning_rate": rate(),
            "images_per_second": self._progress.take_images_per_second("summaries"),
        }
        self._history.add_training_step(step, scalars)
        self._progress.pause()
        self._introduce(step)
        self._progress.go_on()

    def show_network(self, step, network):
        """Show the first layer's kernels, and all weights where they are asked for."""
        if self._is_told:
            self._introduce(step)
            kernels = first_kernels(network)
            if kernels is not None:
                # So large that the lines between them are thin.
                times = max(1, _KERNEL_PIXELS // kernels.shape[0])
                grid = kernel_grid(kernels.repeat(times, 0).repeat(times, 1))
                self._history.summaries.add_image(step, "kernels of the first layer", grid)
            if self._plan.weight_histograms:
                self._history.summaries.add_histograms(step, network.trainable_variables)

    def _introduce(self, step):
        """Show once what does not change with time: the settings, and how the inputs look."""
        if self._is_told and not self._has_introduced:
            self._has_introduced = True
            self._history.summaries.add_hyperparameters(self._settings)
            images, labels = (each[:_SHOWN] for each in next(iter(self._next_batches())))
            # Of several workers, one may have nothing of an epoch's last batch.
            if len(images):
                sheet = draw_batch(np.asarray(images, np.uint8), np.asarray(labels), self._classes)
                self._history.summaries.add_image(step, "inputs", np.asarray(sheet))

    def pause(self):
        """Do not count the time from here on (an evaluation, a save) as training."""
        self._progress.pause()

    def go_on(self):
        """Count time again."""
        self._progress.go_on()

    def add_evaluation(self, epoch, step, rate, training, validation):
        """Write a row of the history. Give it, and all rows so far."""
        row = {
            "epoch": epoch,
            "step": step,
            "learning_rate": rate,
            "images_per_second": round(self._progress.take_images_per_second("evaluations"), 1),
        }
        self._history.add_evaluation(row, training, validation)
        return self._history.rows

    def tell_evaluation(self, row, is_best):
        """Say a row of the history in one line."""
        self._report(
            f"epoch {row['epoch']}/{self._plan.train_epochs}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.4f}  validation loss {row['validation_loss']:.4f}  "
            f"accuracy {row['validation_accuracy']:.4f}  {row['images_per_second']:,.0f} images/s"
            f"{'  best' if is_best else ''}"
        )

    def tell_waiting(self):
        """Say how much of the time went on waiting for input, if that is known."""
        if (share := self._progress.waiting) is not None:
            self._report(f"waited for input {share:.1%} of the training time")

    def close(self):
        """Finish the bar and the files."""
        self._progress.close()
        self._history.close()


class Progress:
    """A bar on stderr: images done, images per second, time left. Nothing where nobody looks."""

    def __init__(self, total_images, done_images=0, *, is_shown=True):
        self._bar = tqdm(
            total=total_images,
            initial=done_images,
            unit=" images",
            unit_scale=True,
            # None: no bar where stderr is not a terminal.
            disable=None if is_shown else True,
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self._images, self._seconds, self._waited = 0, 0.0, None
        self._since = time.perf_counter()
        self._marks = {}

    def add(self, images, waited=None):
        """Count images trained on, and the seconds waited for them (maybe a tensor) if known."""
        self._images += images
        if waited is not None:
            self._waited = (self._waited or 0.0) + waited
        self._bar.update(images)

    def describe(self, before, after=None):
        """Show a few words before the bar, and after it."""
        self._bar.set_description(before)
        if after:
            self._bar.set_postfix_str(after)

    def expect(self, total_images):
        """Let the end be elsewhere: the time left is told up to there."""
        self._bar.total = total_images

    def pause(self):
        """Do not count the time from here on (an evaluation, a save) as training."""
        self._seconds, self._since = self._trained(), None

    def go_on(self):
        """Count time again."""
        self._since = time.perf_counter()

    def take_images_per_second(self, between=None):
        """Return the mean since the last call that named the same: two evaluations, say."""
        now = self._images, self._trained()
        images, seconds = self._marks.get(between, (0, 0.0))
        self._marks[between] = now
        return (now[0] - images) / max(now[1] - seconds, 1e-9)

    @property
    def waiting(self):
        """The share of the time spent in training that went on waiting, None if nobody knows."""
        return None if self._waited is None else float(self._waited) / max(self._trained(), 1e-9)

    def _trained(self):
        """Return the seconds spent in training, without pauses."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._seconds + running

    def close(self):
        """Leave the bar as it is."""
        self._bar.close()


class History:
    """One row per evaluation: in `history.csv`, and as scalars for TensorBoard.

    With `writes` False (a worker that is not the chief) only the rows are kept.
    """

    def __init__(self, folder, rows=(), *, writes=True):
        self._path = Path(folder) / "history.csv"
        self.rows = list(rows)
        self._writes = writes
        self.summaries = Summaries(Path(folder) / "logs", report, writes=writes)

    def add_training_step(self, step, scalars):
        """Write scalars of the training split at one step, for TensorBoard only."""
        by_step = {f"step/{name}": value for name, value in scalars.items()}
        self.summaries.add_scalars("train", step, by_step)

    def add_evaluation(self, row, training, validation):
        """Add a row: a dict with `step` and whatever else, beside two dicts of metrics."""
        measured = {f"validation_{name}": value for name, value in validation.items()}
        self.rows.append({**row, **training, **measured})
        if self._writes:
            self._write_rows()
        step, shown = row["step"], ("learning_rate", "images_per_second")
        of_row = {name: row[name] for name in shown if name in row}
        epoch = {f"epoch/{name}": value for name, value in {**training, **of_row}.items()}
        self.summaries.add_scalars("train", step, epoch)
        epoch = {f"epoch/{name}": value for name, value in validation.items()}
        self.summaries.add_scalars("validation", step, epoch)
        self.summaries.flush()

    def _write_rows(self):
        # The whole file each time: after a resume it must not hold rows of a future undone.
        text = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        try:
            write_file(self._path, text.getvalue())
        except OSError as error:
            # The rows are in the checkpoint too: the next evaluation tries again with all of them.
            report(f"warning: {self._path} could not be written ({reason_of(error)})")

    def close(self):
        """Finish what TensorBoard reads."""
        self.summaries.close()
