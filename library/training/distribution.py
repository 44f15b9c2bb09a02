"""One device, several GPUs, or several workers.

- One device: no strategy, and nothing below costs anything.
- Several GPUs in one machine: tf.distribute.MirroredStrategy.
- Several workers: library/distributed.

Each batch is divided among the replicas in its order, so that together they make the same steps as
one device would.
"""

import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import tensorflow as tf

from library.errors import SettingsError
from library.inputs.worker_slice import WHOLE_BATCH, WorkerSlice
from library.messages import counted

T = TypeVar("T")


class Devices:
    """The replicas that train together, as one of their processes sees them.

    This class knows one process, a single worker. The methods that would have to ask other workers
    are overridden in library/distributed/devices.py.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy | None = None, part: WorkerSlice = WHOLE_BATCH
    ) -> None:
        """Take the replicas of a strategy, None for one device, and this worker's part of a batch.

        The worker with the first part is the chief, which alone writes.
        """
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.worker_slice = part
        self.workers, self.is_chief = part.count, part.index == 0
        self._local_replicas = self.replicas // part.count

    def describe(self, batch_size: int) -> str:
        """Return a few words for the start: the devices, and each one's share of a batch."""
        gpus = tf.config.list_logical_devices("GPU")
        if self.replicas == 1:
            return "one GPU" if gpus else "the CPU"
        workers = f" of {self.workers} workers" if self.workers > 1 else ""
        share = counted(batch_size // self.replicas, "image")
        return f"{self.replicas} {'GPUs' if gpus else 'CPUs'}{workers}, {share} per step on each"

    def check_batch_size(self, name: str, size: int) -> None:
        """Raise SettingsError, naming the setting, if replicas can't share a batch evenly."""
        if size % self.replicas:
            below = size // self.replicas * self.replicas
            nearest = f"{below} or {below + self.replicas}" if below else self.replicas
            raise SettingsError(
                f"{name} {size} can't be divided among {self.replicas} replicas: use {nearest}"
            )

    def divide(self, batches: tf.data.Dataset, batch_size: int) -> Any:
        """Return batches as one share for each of this worker's replicas.

        Args:
            batches: This worker's batches.
            batch_size: Number of examples in a full batch, over all workers. Replica i of n takes
                the i-th n-th of it; a smaller last batch leaves the last replicas less, or nothing.

        Returns:
            A distributed data set; with one replica, the batches themselves.
        """
        if self.replicas == 1:
            return batches
        self.check_batch_size("batch_size", batch_size)
        size = batch_size // self.replicas

        @tf.autograph.experimental.do_not_convert
        def shares(*batch: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.range(self._local_replicas).map(
                tf.autograph.experimental.do_not_convert(
                    lambda i: tf.nest.map_structure(
                        lambda each: each[i * size : (i + 1) * size], batch
                    )
                )
            )

        # Every worker has as many batches as the others, so none need ask whether they have more.
        self.strategy.extended.experimental_enable_get_next_as_optional = False
        return self.strategy.distribute_datasets_from_function(
            lambda _: batches.flat_map(shares) if self._local_replicas > 1 else batches
        )

    def explain_lost_workers(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that raises UserError, naming the workers, if others are lost."""
        return contextlib.nullcontext()

    def agree(self, received: signal.Signals | None) -> tuple[signal.Signals | None, float]:
        """Return any worker's signal, or None, and the seconds of the chief's clock.

        What is decided by them is then decided alike on every worker.
        """
        return received, time.monotonic()

    def check_same_step(self, step: int) -> None:
        """Raise UserError, on every worker, unless each resumes from the chief's step."""

    def chief_first(self, function: Callable[[], T]) -> T:
        """Call the function on the chief, then on the others. Return its result."""
        return function()

    def spread_seeds(self, network: keras.Model) -> None:
        """Give each replica its own seeds for dropout, which differ by its number.

        To be called whenever all have the same ones: at the start and after a resume.
        """
        states = [each for each in network.variables if "int" in each.dtype and each.shape == (2,)]
        if self.replicas == 1 or not states:
            return

        def spread() -> None:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                value = tf.convert_to_tensor(state)
                state.assign(value + tf.cast(tf.stack([number, 0]), value.dtype))

        tf.function(lambda: self.strategy.run(spread), autograph=False)()


def synchronize_batch_norm(network: keras.Model) -> None:
    """Make every BatchNormalization use the statistics of all replicas' images, not its own."""
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
