"""What a run has to say while it runs: a line per evaluation, a progress bar, CSV, TensorBoard."""

import csv
import io
import sys
import time
from pathlib import Path

from tqdm import tqdm

from library.files import write_file
from library.training.summaries import Summaries


def report(text):
    """Say one line on stderr, above the progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


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
        """Give the mean since the last call that named the same: two evaluations, say."""
        now = self._images, self._trained()
        images, seconds = self._marks.get(between, (0, 0.0))
        self._marks[between] = now
        return (now[0] - images) / max(now[1] - seconds, 1e-9)

    @property
    def waiting(self):
        """The share of the time spent in training that went on waiting, None if nobody knows."""
        return None if self._waited is None else float(self._waited) / max(self._trained(), 1e-9)

    def _trained(self):
        """Give the seconds spent in training, without pauses."""
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
            report(f"warning: {self._path} could not be written ({error.strerror})")

    def close(self):
        """Finish what TensorBoard reads."""
        self.summaries.close()
