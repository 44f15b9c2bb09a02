"""The same training through keras.Model.fit, for who wants Keras to hold the reins.

The steps are those of library/training/steps.py, as the `train_step` of a Keras model. All around
them is the loop's own: resuming, evaluation, the best, the latest, signals. So both engines give
the same weights, and each goes on where the other stopped.
"""

import keras
import tensorflow as tf

from library.errors import SettingsError
from library.training.steps import make_replica_step
from library.training.trainer import Trainer


class KerasFitTrainer(Trainer):
    """As Training; but `fit` makes the steps between two evaluations. One machine only."""

    def _compile(self):
        if self.devices.workers > 1:
            raise SettingsError("engine fit can't train with several workers: use engine loop")
        with self.devices.strategy.scope():
            step = make_replica_step(
                self.head,
                self.objective,
                self.optimizer,
                self.totals,
                self.devices.replicas,
                averages=self.averages,
                xla=self.xla,
            )
            self._model = Fitted(self.head, step)
            self._model.compile(
                self.optimizer,
                steps_per_execution=self.plan.steps_per_execution,
                jit_compile=False,  # The step compiles itself.
                auto_scale_loss=False,
            )

    def _begin_epoch(self):
        """Do nothing: `fit` makes iterators itself."""

    def _train_batches(self, stop):
        end = min(self.training.batches_per_epoch, self.batch + self.total_steps - self.step)
        if self.plan.steps_between_evals:
            every = self.plan.steps_between_evals
            end = min(end, self.batch + every - self.step % every)
        if to_edge := self.profile.steps_to_edge(self.step):
            end = min(end, self.batch + to_edge)
        batches = self.seen.training.batches(self.epoch, self.batch)
        taken = batches.take(end - self.batch)
        callback = AfterSteps(self, stop, end)
        divided = self.devices.divide(taken, self.training.batch_size)
        self._model.fit(divided, shuffle=False, verbose=0, callbacks=[callback])
        if self.batch < end and self._goes_on():
            raise self._too_few(end)


class Fitted(keras.Model):
    """A network, with the project's own step instead of Keras's."""

    def __init__(self, network, replica_step):
        super().__init__(network.inputs, network.outputs)
        self._replica_step = replica_step

    def train_step(self, data):
        """Make one step. Keras calls this on every replica, with its share of a batch."""
        images, labels = data
        everywhere = tf.distribute.get_replica_context()
        count = tf.cast(tf.shape(labels)[0], tf.float32)
        loss = self._replica_step(images, labels, everywhere.all_reduce("SUM", count))
        return {"loss": everywhere.all_reduce("SUM", loss)}


class AfterSteps(keras.callbacks.Callback):
    """Tells a Training what `fit` did, and `fit` when something else is due."""

    def __init__(self, run, stop, end):
        super().__init__()
        self._run, self._stop = run, stop
        self._start, self._end = run.batch, end

    def on_train_batch_end(self, batch, logs=None):
        """Take in one call of `fit`: with several steps at once, `batch` is the last one's."""
        count = min(self._start + batch + 1, self._end) - self._run.batch
        self._run._count(count)
        # Of several steps Keras tells the last one's loss.
        self._run._take_in(tf.reshape(tf.cast(logs["loss"], tf.float32), [1]), count, self._stop)
        self.model.stop_training = not self._run._goes_on()
