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
        self._images = 0
        self._seconds = self._all_seconds = self._waited = 0.0
        self._since = time.perf_counter()

    def add(self, images, waited=0.0):
        """Count images that were trained on, and the seconds waited for them (maybe a tensor)."""
        self._images += images
        self._waited += waited
        self._bar.update(images)

    def describe(self, text):
        """Show a few words before the bar."""
        self._bar.set_description(text)

    def pause(self):
        """Do not count the time from here on (an evaluation, a save) as training."""
        seconds = time.perf_counter() - self._since
        self._seconds += seconds
        self._all_seconds += seconds

    def go_on(self):
        """Count time again."""
        self._since = time.perf_counter()

    def take_images_per_second(self):
        """Give the mean since the last call."""
        rate = self._images / max(self._seconds, 1e-9)
        self._images, self._seconds = 0, 0.0
        return rate

    @property
    def waiting(self):
        """The share of the time spent in training, up to the last pause, that went on waiting."""
        return float(self._waited) / max(self._all_seconds, 1e-9)

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
        self.summaries.add_scalars("train", step, scalars)

    def add_evaluation(self, row, training, validation):
        """Add a row: a dict with `step` and whatever else, beside two dicts of metrics."""
        measured = {f"validation_{name}": value for name, value in validation.items()}
        self.rows.append({**row, **training, **measured})
        if self._writes:
            self._write_rows()
        step, speed = row["step"], {k: v for k, v in row.items() if k == "images_per_second"}
        epoch = {f"epoch_{name}": value for name, value in training.items()}
        self.summaries.add_scalars("train", step, {**epoch, **speed})
        epoch = {f"epoch_{name}": value for name, value in validation.items()}
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
