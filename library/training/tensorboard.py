"""What TensorBoard shows of a run: scalars, input images, kernels, histograms, hyperparameters.

A run is one entry of TensorBoard, which groups by the beginning of a name: train/…, validation/…,
test/…, step/…, images/…, weights/…. If the files can't be written, there is one warning and the
training continues.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from library.figures.contact_sheet import draw_batch
from library.figures.kernels import first_kernels, kernel_grid
from library.training.listeners import Evaluation, Listener, Run, try_to_write

LOGS = "logs"
# The metrics of TensorBoard's table of runs; `evaluate` writes those of the test split.
_METRICS = (
    *("validation/accuracy", "validation/loss", "test/accuracy", "test/loss", "test/macro_f1"),
    *("train/accuracy", "train/loss", "train/images_per_second"),
)
_SHOWN_IMAGES = 32
_KERNEL_PIXELS = 24


class TensorBoard(Listener):
    """Writes event files into the run's folder `logs`."""

    def __init__(self, *, shows_inputs: bool = True) -> None:
        """Write a batch of training images, too, if `shows_inputs`: it has to be decoded first."""
        self._shows_inputs = shows_inputs

    def on_start(self, run: Run) -> None:
        """Open the event files."""
        super().on_start(run)
        self._folder = run.paths.run_dir / LOGS
        self._is_off = self._has_introduced = False
        self._writer: Any = None
        self._kernels: np.ndarray | None = None
        self._attempt(self._open)

    def on_steps(self, count: int, losses: tf.Tensor) -> None:
        """Write the loss, the learning rate and the throughput every `save_summary_steps`."""
        step, every = self.run.state.step, self.run.plan.save_summary_steps
        if step // every == (step - count) // every:
            return
        scalars = {
            "step/loss": float(losses[-1]),
            **{f"step/{name}": rate for name, rate in self.run.learning_rates().items()},
            "step/images_per_second": self.run.throughput.images_per_second("summaries"),
        }
        if (share := self.run.throughput.input_wait_share("summaries")) is not None:
            scalars["step/input_wait_share"] = share
        self._attempt(self._write_scalars, step, scalars)
        with self.run.throughput.paused():
            self._attempt(self._introduce, step)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Write the metrics, the first layer's kernels, and histograms if they are asked for."""
        self._attempt(self._write_evaluation, evaluation)

    def on_finish(self, error: BaseException | None) -> None:
        """Close the file."""
        if self._writer:
            self._attempt(self._writer.close)

    def _attempt(self, write: Callable[..., None], *arguments: Any) -> None:
        if not self._is_off:
            self._is_off = not try_to_write("No more TensorBoard summaries", write, *arguments)

    def _open(self) -> None:
        self._writer = tf.summary.create_file_writer(str(self._folder))
        # A folder that can't be written to is noticed here, not at some step.
        self._writer.flush()

    def _introduce(self, step: int) -> None:
        """Write once what does not change with time: the settings, and how the inputs look."""
        if self._has_introduced:
            return
        self._has_introduced = True
        self._write_hyperparameters(self.run.paths.settings)
        if not self._shows_inputs:
            return
        batch = next(iter(self.run.next_batches()), ((), ()))
        images, labels = (each[:_SHOWN_IMAGES] for each in batch)
        # One of several workers may have no example of an epoch's last batch.
        if len(images):
            classes = self.run.paths.classes
            sheet = draw_batch(np.asarray(images, np.uint8), np.asarray(labels), classes)
            self._write_image(step, "inputs", np.asarray(sheet))

    def _write_evaluation(self, evaluation: Evaluation) -> None:
        row, step, network = evaluation.row, evaluation.row["step"], self.run.network
        names = "learning_rate", "head_learning_rate", "images_per_second"
        rates = {name: row[name] for name in names if name in row}
        for split, values in (
            ("train", {**evaluation.training, **rates}),
            ("validation", evaluation.validation),
        ):
            self._write_scalars(step, {f"{split}/{name}": values[name] for name in values})
        self._writer.flush()
        self._introduce(step)
        kernels = first_kernels(network)
        before = self._kernels
        # Those of a frozen layer stay.
        if kernels is not None and (before is None or not np.array_equal(kernels, before)):
            self._kernels = kernels
            # So large that the lines between them are thin.
            times = max(1, _KERNEL_PIXELS // kernels.shape[0])
            grid = kernel_grid(kernels.repeat(times, 0).repeat(times, 1))
            self._write_image(step, "kernels of the first layer", grid)
        if self.run.plan.weight_histograms:
            with self._writer.as_default(step):
                for variable in network.trainable_variables:
                    tf.summary.histogram(f"weights/{variable.path}", tf.convert_to_tensor(variable))

    def _write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        with self._writer.as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def _write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Write (height, width, 1 or 3): uint8, or float32 in [0, 1]."""
        from tensorboard.plugins.image.metadata import create_summary_metadata

        # As tf.summary.image does, which compresses four times as long for a fifth less.
        pixels = tf.image.convert_image_dtype(pixels, tf.uint8, saturate=True)
        height, width, _ = pixels.shape
        content = tf.stack([str(width), str(height), tf.image.encode_png(pixels, compression=1)])
        metadata = create_summary_metadata(display_name=None, description=None)
        with self._writer.as_default(step):
            tf.summary.write(f"images/{name}", content, metadata=metadata)

    def _write_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Write the settings for the HParams tab, to compare runs by."""
        from tensorboard.plugins.hparams import api

        words = {k: ", ".join(v) for k, v in values.items() if isinstance(v, (list, tuple)) and v}
        simple = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
        settings = {**simple, **words}
        hparams = [api.HParam(name) for name in sorted(settings)]
        tags = dict.fromkeys((*_METRICS, f"validation/{self.run.plan.monitor.metric}"))
        metrics = [api.Metric(tag, display_name=tag.replace("/", " ")) for tag in tags]
        with self._writer.as_default(0):
            api.hparams_config(hparams, metrics)
            api.hparams(settings, trial_id=str(self._folder.parent))


def write_test_metrics(run_dir: Path, metrics: Mapping[str, float], step: int) -> None:
    """Add the metrics of a run's best snapshot on the test split to the run's event files.

    Args:
        run_dir: The run's folder.
        metrics: Name → value.
        step: Training steps of the snapshot.
    """
    with tf.summary.create_file_writer(str(run_dir / LOGS)).as_default(step):
        for name, value in metrics.items():
            tf.summary.scalar(f"test/{name}", value)
