"""Training steps, timed: on the real inputs, and on a batch that is ready."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from library.inputs.batching import prefetch
from library.training.trainer import Trainer

# What makes one call of some steps: returns their number, their losses and the input wait.
StepCall = Callable[[], tuple[int, tf.Tensor, tf.Tensor]]
# Seconds that a call of several steps may take.
_CALL_SECONDS = 1.0
# Seconds that emptying the buffers may take, before real inputs are timed.
_WARM_UP_SECONDS = 3.0


@dataclass(frozen=True)
class StepTimes:
    """Some training steps in a row.

    Attributes:
        count: Number of steps.
        images: Number of images in them.
        seconds: Wall time of all of them.
        input_wait: Seconds of these spent waiting for input.
        processor_seconds: Processor time of the whole process.
    """

    count: int
    images: float
    seconds: float
    input_wait: float
    processor_seconds: float

    @property
    def per_step(self) -> float:
        """Seconds of a step."""
        return self.seconds / self.count

    @property
    def per_image(self) -> float:
        """Seconds of an image."""
        return self.seconds / self.images

    @property
    def wait_share(self) -> float:
        """Share of the time that was spent waiting for input."""
        return min(1.0, self.input_wait / self.seconds)


def time_steps(make_call: StepCall, images_per_step: float, seconds: float) -> StepTimes:
    """Make calls for some seconds, at least one, and time them."""
    count, waits, losses = 0, [], None
    start, processor = time.perf_counter(), time.process_time()
    while not count or time.perf_counter() - start < seconds:
        made, new_losses, wait = make_call()
        if losses is not None:
            # As a training does: waiting for the losses of this call would leave a GPU idle.
            float(losses[-1])
        losses = new_losses
        waits.append(wait)
        count += made
    assert losses is not None
    float(losses[-1])
    return StepTimes(
        count,
        count * images_per_step,
        time.perf_counter() - start,
        float(sum(map(float, waits))),
        time.process_time() - processor,
    )


class TrainingSteps:
    """Makes the steps of a Trainer, epoch after epoch; nothing is evaluated or saved.

    Attributes:
        call_steps: Number of steps per call: `steps_per_execution`, or fewer if these take long.
        epoch_starts: Seconds that it took to begin each epoch.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        training = trainer.inputs.training
        self._batches_per_epoch = training.batches_per_epoch
        self.images_per_step = training.examples / training.batches_per_epoch
        self.call_steps = 1
        self.epoch_starts: list[float] = []
        self._epochs = itertools.count()
        self._batches: Any = None
        self._left = 0

    def make_call(self) -> tuple[int, tf.Tensor, tf.Tensor]:
        """Make the steps of one call, as the Trainer would."""
        trainer = self._trainer
        if not self._left:
            self._begin_epoch()
        count = min(self.call_steps, self._left)
        try:
            losses, wait = trainer.train_steps(self._batches, count)
        except (tf.errors.OutOfRangeError, StopIteration):
            raise trainer.too_few_examples(self._batches_per_epoch) from None
        self._left -= count
        trainer.state.step += count
        return count, losses, wait

    def choose_call_steps(self) -> None:
        """Set `call_steps`, after making a step alone."""
        alone = time_steps(self.make_call, self.images_per_step, 0)
        fitting = int(_CALL_SECONDS / alone.per_step)
        self.call_steps = max(1, min(self._trainer.plan.steps_per_execution, fitting))

    def empty_buffers(self) -> None:
        """Use up the batches that were prefetched before the first steps."""
        batches = self._trainer.inputs.training.options.prefetch_batches + 1
        end, made = time.perf_counter() + _WARM_UP_SECONDS, 0
        while made < batches and time.perf_counter() < end:
            made += time_steps(self.make_call, self.images_per_step, 0).count

    def close(self) -> None:
        """End the preparation of further batches."""
        self._batches, self._left = None, 0

    def _begin_epoch(self) -> None:
        start = time.perf_counter()
        # Several epochs of cached features are one data set.
        epochs = getattr(self._trainer.step_inputs.training, "epochs_at_once", 1)
        epoch = next(self._epochs) * epochs
        self._batches = iter(self._trainer.divided_batches(epoch, 0, epochs=epochs))
        self._left = epochs * self._batches_per_epoch
        self.epoch_starts += [(time.perf_counter() - start) / epochs] * epochs


def ready_calls(trainer: Trainer, call_steps: int, share: int = 1) -> tuple[StepCall, int] | None:
    """Return what makes steps on one batch that is ready, and the number of its images.

    Args:
        trainer: What makes the steps.
        call_steps: Number of steps per call.
        share: Take one n-th of a batch.

    Returns:
        None if a batch can't be divided like this.
    """
    devices, training = trainer.devices, trainer.inputs.training
    size = training.batch_size // share // devices.replicas * devices.replicas
    if not size:
        return None
    make: Any = trainer.step_inputs.training.batches
    if trainer.parts.augment:
        make = training.step_batches
    batch = tf.nest.map_structure(lambda each: each.numpy()[:size], next(iter(make(0))))
    size = len(tf.nest.flatten(batch)[0]) // devices.replicas * devices.replicas
    if not size:
        return None
    # A batch of unknown size, as of the real inputs, so that the step is not traced again.
    slices = tf.data.Dataset.from_tensor_slices(batch)
    ready = prefetch(slices.batch(size).take(1).cache().repeat(), training.options)
    iterator = iter(devices.divide(ready, size))

    def make_call() -> tuple[int, tf.Tensor, tf.Tensor]:
        return call_steps, *trainer.train_steps(iterator, call_steps)

    return make_call, size
