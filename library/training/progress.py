"""What a run shows in the terminal: a summary, a progress bar, one line per evaluation."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from library.messages import counted, counted_classes
from library.training.distribution import Devices
from library.training.listeners import Evaluation, Finish, Listener, Start, Steps
from library.training.parts import Parts, RunInputs

logger = logging.getLogger(__name__)


def run_summary(parts: Parts, inputs: RunInputs, classes: Sequence[str], devices: Devices) -> str:
    """Return one line about a run.

    Args:
        parts: What is trained.
        inputs: The training and the validation split.
        classes: The class names.
        devices: What it is trained on.
    """
    network, (training, validation) = parts.network, inputs
    return (
        f"{network.name}: {network.count_params():,} parameters; {counted_classes(len(classes))}, "
        f"{training.examples:,} training and {counted(validation.examples, 'validation image')}; "
        f"{counted(training.batches_per_epoch, 'step')} per epoch, "
        f"batch size {training.batch_size}, on {devices.describe(training.batch_size)}"
    )


class ProgressBar(Listener):
    """Shows images, images per second and the time left, if stderr is a terminal."""

    def on_start(self, start: Start) -> None:
        """Show the bar."""
        self._epochs = start.plan.train_epochs
        self._bar = tqdm(
            total=start.total_images,
            initial=start.images,
            unit=" images",
            unit_scale=True,
            disable=None,  # no bar if stderr is not a terminal
            dynamic_ncols=True,
            smoothing=0.05,
        )
        self._show_best(start.best)

    def on_epoch_start(self, epoch: int) -> None:
        """Show the epoch."""
        self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}")

    def on_steps(self, steps: Steps) -> None:
        """Move on; the total changes when a time budget shortens the training."""
        self._bar.total = steps.total_images
        self._bar.update(steps.images)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Show the best value so far."""
        self._show_best(evaluation.best)

    def on_finish(self, finish: Finish) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show_best(self, best: Mapping[str, Any] | None) -> None:
        if best:
            self._bar.set_postfix_str(f"best {best['value']:.4f} (epoch {best['epoch']})")


class LogLines(Listener):
    """Logs each evaluation and the end."""

    def on_start(self, start: Start) -> None:
        """Remember the number of epochs."""
        self._epochs, self._throughput = start.plan.train_epochs, start.throughput

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Log the losses and accuracies."""
        row = evaluation.row
        logger.info(
            f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.4f}  "
            f"accuracy {row['accuracy']:.4f}  validation loss {row['validation_loss']:.4f}  "
            f"accuracy {row['validation_accuracy']:.4f}  {row['images_per_second']:,.0f} images/s"
            f"{'  best' if evaluation.is_best else ''}"
        )

    def on_finish(self, finish: Finish) -> None:
        """Log early stopping, and the time spent waiting for input if it was measured."""
        if finish.stop_reason:
            logger.info(f"Stopped early: {finish.stop_reason}")
        share = self._throughput.input_wait_share
        if share is not None and finish.error is None:
            logger.info(f"{100 * share:.1f} % of training time was spent waiting for input")
