"""What a run tells while it trains: lines and a bar on stderr, history.csv, TensorBoard."""

import numpy as np

from library.explaining.kernels import first_kernels, kernel_grid
from library.inputs.sheets import draw_batch
from library.training.history import History, Progress

# Input images on TensorBoard's sheet.
_SHOWN = 32
_KERNEL_PIXELS = 24


class Chronicle:
    """Passes on what happens in a run. With `is_told` False (not the chief) it only counts.

    `rows` are those of the history so far; `images` are how many the whole training has and how
    many of it are done. `next_batches` is called for the batches that come next.
    """

    def __init__(self, keeping, plan, rows, images, next_batches, report, *, is_told=True):
        self._settings, self._classes = keeping.settings, keeping.classes
        self._plan = plan
        self._next_batches = next_batches
        self._report = report
        self._is_told = is_told
        self._has_introduced = False
        self._history = History(keeping.run_dir, rows, writes=is_told)
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
