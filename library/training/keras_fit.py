"""`--engine fit`: the same training through `keras.Model.fit`.

The steps are those of library/training/steps.py, as the `train_step` of a Keras model. Everything
around them is the Trainer's: resuming, evaluation, snapshots, checkpoints, signals. So both engines
produce the same weights, and each resumes what the other began.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from library.errors import SettingsError
from library.training.steps import make_replica_step
from library.training.trainer import Trainer


class KerasFitTrainer(Trainer):
    """A Trainer whose steps between two evaluations are made by `fit`; one machine only."""

    has_whole_steps = False

    def compile(self) -> None:
        """Make the Keras model."""
        if self.devices.workers > 1:
            raise SettingsError("engine fit can't train with several workers: use engine loop")
        parts, strategy = self.step_parts, self.devices.strategy
        with strategy.scope():
            step = make_replica_step(parts, self.totals, self.devices.replicas, xla=self.plan.xla)
            self.model = FitModel(parts.network, step)
            self.model.compile(
                parts.optimizer,
                steps_per_execution=self.plan.steps_per_execution,
                jit_compile=False,  # The step compiles itself.
                auto_scale_loss=False,
            )

    def prefetch(self) -> None:
        """Do nothing: `fit` makes iterators itself."""

    def make_steps(self) -> None:
        """Call `fit` for the steps until something else is due."""
        state = self.state
        end = state.batch + self.steps_until_due()
        batches = self.divided_batches(state.epoch, state.batch, end - state.batch)
        callback = AfterSteps(self, end)
        self.model.fit(batches, shuffle=False, verbose=0, callbacks=[callback])
        if state.batch < end and self.should_continue():
            raise self.too_few_examples(end)


class FitModel(keras.Model):
    """A network that trains by the project's own step instead of Keras's."""

    def __init__(self, network: keras.Model, replica_step: Callable[..., tf.Tensor]) -> None:
        super().__init__(network.inputs, network.outputs)
        self._replica_step = replica_step

    def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
        """Do nothing: the network is built, and Keras would average replicas' uneven shares."""

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Make one step. Keras calls this on every replica, with its share of a batch."""
        images, labels, *drawn = data
        replicas = tf.distribute.get_replica_context()
        count = tf.cast(tf.shape(labels)[0], tf.float32)
        loss = self._replica_step(images, labels, replicas.all_reduce("SUM", count), *drawn)
        return {"loss": replicas.all_reduce("SUM", loss)}


class AfterSteps(keras.callbacks.Callback):
    """Reports the steps of `fit` to the Trainer, and stops `fit` when something else is due."""

    def __init__(self, trainer: Trainer, end: int) -> None:
        super().__init__()
        self._trainer = trainer
        self._start, self._end = trainer.state.batch, end

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report one call; if it made several steps, `batch` is the last of them."""
        count = min(self._start + batch + 1, self._end) - self._trainer.state.batch
        # Keras reports the loss of the last step only.
        loss = tf.reshape(tf.cast((logs or {})["loss"], tf.float32), [1])
        self._trainer.after_steps(loss, count)
        self.model.stop_training = not self._trainer.should_continue()
