"""What TensorBoard shows of a run: scalars, input images, kernels, histograms, hyperparameters.

It shows those together whose names begin alike: epoch/…, images/…, step/…, weights/….
Looking on must not harm: where nothing can be written, one warning is given and training goes on.
"""

from pathlib import Path

import tensorflow as tf

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
_MEASURES = (
    ("epoch/accuracy", "validation", "validation accuracy"),
    ("epoch/loss", "validation", "validation loss"),
    ("epoch/accuracy", "train", "training accuracy"),
    ("epoch/loss", "train", "training loss"),
    ("epoch/images_per_second", "train", "images per second"),
)


class Summaries:
    """Event files in a folder, for the settings, and in two below it, `train` and `validation`."""

    def __init__(self, folder, report, *, writes=True):
        self._folder, self._report = Path(folder), report
        self._is_off = not writes
        self._writers = {}
        for split in ("train", "validation"):
            self._attempt(self._open, split, self._folder / split)

    def add_scalars(self, split, step, scalars):
        """Write name → number."""
        self._attempt(self._scalars, split, step, scalars)

    def add_image(self, step, name, pixels):
        """Write one picture (height, width, 1 or 3): uint8, or float32 in [0, 1]."""
        self._attempt(self._image, step, name, pixels)

    def add_histograms(self, step, variables):
        """Write the distribution of each of the variables."""
        self._attempt(self._histograms, step, variables)

    def add_hyperparameters(self, values):
        """Write the settings of this run (a dict) for the HParams tab, to compare runs by."""
        self._attempt(self._hyperparameters, values)

    def flush(self):
        """Let a TensorBoard that looks on see what there is."""
        for split in ("train", "validation"):
            self._attempt(lambda split: self._writers[split].flush(), split)

    def close(self):
        """Finish the files."""
        for split in ("train", "validation"):
            self._attempt(lambda split: self._writers[split].close(), split)

    def _attempt(self, write, *arguments):
        if self._is_off:
            return
        try:
            write(*arguments)
        except (OSError, tf.errors.OpError) as error:
            self._is_off = True
            reason = str(error).strip().split("\n")[0]
            self._report(f"warning: no more TensorBoard summaries ({reason}); training goes on")

    def _open(self, split, folder):
        self._writers[split] = tf.summary.create_file_writer(str(folder))
        # A folder that can't be written to is noticed here, not at some step.
        self._writers[split].flush()

    def _scalars(self, split, step, scalars):
        with self._writers[split].as_default(step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def _image(self, step, name, pixels):
        with self._writers["train"].as_default(step):
            tf.summary.image(f"images/{name}", pixels[None])

    def _histograms(self, step, variables):
        with self._writers["train"].as_default(step):
            for variable in variables:
                tf.summary.histogram(f"weights/{variable.path}", tf.convert_to_tensor(variable))

    def _hyperparameters(self, values):
        from tensorboard.plugins.hparams import api

        words = {k: ", ".join(v) for k, v in values.items() if isinstance(v, (list, tuple)) and v}
        simple = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
        hparams = [api.HParam(name) for name in _COMPARED if name in values]
        metrics = [api.Metric(tag, split, display_name=name) for tag, split, name in _MEASURES]
        # Above the splits' folders: the table finds their measures in them.
        with tf.summary.create_file_writer(str(self._folder)).as_default(0):
            api.hparams_config(hparams, metrics)
            api.hparams({**simple, **words}, trial_id=str(self._folder.parent))
