"""What TensorBoard shows of a run: scalars, input images, kernels, histograms, hyperparameters.

TensorBoard groups by the beginning of a name: epoch/…, images/…, step/…, weights/….
If the files can't be written, there is one warning and the training continues.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from library.figures.contact_sheet import draw_batch
from library.figures.kernels import first_kernels, kernel_grid
from library.training.listeners import Evaluation, Listener, Run, try_to_write

# The settings in TensorBoard's table, which shows the first five by name unless asked for more;
# `python run.py compare` shows all that differ.
_COMPARED = (
    "augmentations",
    "dropout_rate",
    "image_size",
    "learning_rate",
    "model",
    "optimizer",
    "train_batch_size",
    "train_epochs",
    "weight_decay",
    "xentropy_label_smoothing",
)
# (name, split, name in the table)
_METRICS = (
    ("epoch/accuracy", "validation", "validation accuracy"),
    ("epoch/loss", "validation", "validation loss"),
    ("epoch/accuracy", "train", "training accuracy"),
    ("epoch/loss", "train", "training loss"),
    ("epoch/images_per_second", "train", "images per second"),
)
_SHOWN_IMAGES = 32
_KERNEL_PIXELS = 24


class TensorBoard(Listener):
    """Writes event files into `logs/`: the settings, and below it `train` and `validation`."""

    def on_start(self, run: Run) -> None:
        """Open the event files."""
        super().on_start(run)
        self._folder = run.paths.run_dir / "logs"
        self._is_off = self._has_introduced = False
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._attempt(self._open)

    def on_steps(self, count: int, losses: tf.Tensor) -> None:
        """Write the loss, the learning rate and the throughput every `save_summary_steps`."""
        step, every = self.run.state.step, self.run.plan.save_summary_steps
        if step // every == (step - count) // every:
            return
        scalars = {
            "step/loss": float(losses[-1]),
            "step/learning_rate": self.run.learning_rate(),
            "step/images_per_second": self.run.throughput.images_per_second("summaries"),
        }
        self._attempt(self._write_scalars, "train", step, scalars)
        with self.run.throughput.paused():
            self._attempt(self._introduce, step)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Write the metrics, the first layer's kernels, and histograms if they are asked for."""
        self._attempt(self._write_evaluation, evaluation)

    def on_finish(self, error: BaseException | None) -> None:
        """Close the files."""
        for writer in self._writers.values():
            self._attempt(writer.close)

    def _attempt(self, write: Callable[..., None], *arguments: Any) -> None:
        if not self._is_off:
            self._is_off = not try_to_write("No more TensorBoard summaries", write, *arguments)

    def _open(self) -> None:
        for split in ("train", "validation"):
            self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
            # A folder that can't be written to is noticed here, not at some step.
            self._writers[split].flush()

    def _introduce(self, step: int) -> None:
        """Write once what does not change with time: the settings, and how the inputs look."""
        if self._has_introduced:
            return
        self._has_introduced = True
        self._write_hyperparameters(self.run.paths.settings)
        images, labels = (each[:_SHOWN_IMAGES] for each in next(iter(self.run.next_batches())))
        # One of several workers may have no example of an epoch's last batch.
        if len(images):
            classes = self.run.paths.classes
            sheet = draw_batch(np.asarray(images, np.uint8), np.asarray(labels), classes)
            self._write_image(step, "inputs", np.asarray(sheet))

    def _write_evaluation(self, evaluation: Evaluation) -> None:
        row, step, network = evaluation.row, evaluation.row["step"], self.run.network
        rates = {name: row[name] for name in ("learning_rate", "images_per_second")}
        for split, values in (
            ("train", {**evaluation.training, **rates}),
            ("validation", evaluation.validation),
        ):
            self._write_scalars(split, step, {f"epoch/{name}": values[name] for name in values})
            self._writers[split].flush()
        self._introduce(step)
        kernels = first_kernels(network)
        if kernels is not None:
            # So large that the lines between them are thin.
            times = max(1, _KERNEL_PIXELS // kernels.shape[0])
            grid = kernel_grid(kernels.repeat(times, 0).repeat(times, 1))
            self._write_image(step, "kernels of the first layer", grid)
        if self.run.plan.weight_histograms:
            with self._writers["train"].as_default(step):
                for variable in network.trainable_variables:
                    tf.summary.histogram(f"weights/{variable.path}", tf.convert_to_tensor(variable))

    def _write_scalars(self, split: str, step: int, scalars: Mapping[str, float]) -> None:
        with self._writers[split].as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def _write_image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Write (height, width, 1 or 3): uint8, or float32 in [0, 1]."""
        with self._writers["train"].as_default(step):
            tf.summary.image(f"images/{name}", pixels[None])

    def _write_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Write the settings for the HParams tab, to compare runs by."""
        from tensorboard.plugins.hparams import api

        words = {k: ", ".join(v) for k, v in values.items() if isinstance(v, (list, tuple)) and v}
        simple = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
        hparams = [api.HParam(name) for name in _COMPARED if name in values]
        metrics = [api.Metric(tag, split, display_name=name) for tag, split, name in _METRICS]
        # Above the splits' folders: the table finds their metrics in them.
        with tf.summary.create_file_writer(str(self._folder)).as_default(0):
            api.hparams_config(hparams, metrics)
            api.hparams({**simple, **words}, trial_id=str(self._folder.parent))
