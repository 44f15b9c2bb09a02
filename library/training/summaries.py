"""What TensorBoard shows of a run: scalars, input images, kernels, histograms, hyperparameters.

Looking on must not harm: where nothing can be written, one warning is given and training goes on.
"""

from pathlib import Path

import tensorflow as tf

from library.explaining.kernels import kernel_grid


class Summaries:
    """Two event files in one folder, `train` and `validation`."""

    def __init__(self, folder, report, *, writes=True):
        self._report = report
        self._is_off = not writes
        self._writers = {}
        for split in ("train", "validation"):
            self._attempt(self._open, split, Path(folder) / split)

    def add_scalars(self, split, step, scalars):
        """Write name → number."""
        self._attempt(self._scalars, split, step, scalars)

    def add_images(self, step, images, kernels):
        """Write input images, uint8 (batch, height, width, channels), and a network's kernels."""
        self._attempt(self._images, step, images, kernels)

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

    def _images(self, step, images, kernels):
        with self._writers["train"].as_default(step):
            if images is not None:
                tf.summary.image("input images", images, max_outputs=9)
            if kernels is not None:
                tf.summary.image("kernels of the first layer", kernel_grid(kernels)[None])

    def _histograms(self, step, variables):
        with self._writers["train"].as_default(step):
            for variable in variables:
                tf.summary.histogram(variable.path, tf.convert_to_tensor(variable))

    def _hyperparameters(self, values):
        from tensorboard.plugins.hparams import api

        words = {k: ", ".join(v) for k, v in values.items() if isinstance(v, (list, tuple)) and v}
        simple = {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}
        with self._writers["train"].as_default(0):
            api.hparams({**simple, **words})
