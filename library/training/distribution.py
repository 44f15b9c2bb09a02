"""One device, several GPUs, or several workers.

- One device: no strategy, and nothing below costs anything.
- Several GPUs in one machine: tf.distribute.MirroredStrategy.
- Several workers (library/training/cluster.py): tf.distribute.MultiWorkerMirroredStrategy.

Each batch is divided among the replicas in its order, so that together they make the same steps as
one device would.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from library.errors import SettingsError, UserError
from library.inputs.worker_slice import WorkerSlice
from library.logging import set_chief
from library.messages import counted
from library.training.cluster import Cluster, find_lost, wait_for_workers

T = TypeVar("T")

# What a collective operation raises when a worker is lost.
LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


def choose_devices(
    num_gpus: int | None = None,
    *,
    gpu_growth: bool = False,
    intra_op_threads: int | None = None,
    inter_op_threads: int | None = None,
) -> None:
    """Configure the devices of TensorFlow, before it starts them.

    Args:
        num_gpus: Number of GPUs to use; 0: the CPU; None: all that CUDA_VISIBLE_DEVICES shows.
        gpu_growth: Take a GPU's memory as needed, not all of it at the start.
        intra_op_threads: Threads that one operation may use; None: TensorFlow's choice.
        inter_op_threads: Operations that may run at once; None: TensorFlow's choice.

    Raises:
        SettingsError: There are fewer GPUs.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if num_gpus is not None:
        if num_gpus > len(gpus):
            raise SettingsError(f"num_gpus {num_gpus}: this machine has {len(gpus)}")
        gpus = gpus[:num_gpus]
        tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus if gpu_growth else ():
        tf.config.experimental.set_memory_growth(gpu, True)
    if intra_op_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
    if inter_op_threads is not None:
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads)


def start_devices(cluster: Cluster | None, wait_seconds: float) -> "Devices":
    """Start the chosen GPUs, those of every worker if there is a cluster; only the chief logs.

    Raises:
        UserError: Other workers, which are named, did not appear within `wait_seconds`.
    """
    if cluster is None:
        gpus = tf.config.list_logical_devices("GPU")
        return Devices(tf.distribute.MirroredStrategy(gpus) if len(gpus) > 1 else None)
    set_chief(cluster.index == 0)
    wait_for_workers(cluster, wait_seconds)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )
    with explain_lost_workers(cluster):
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(resolver), cluster)


@contextlib.contextmanager
def explain_lost_workers(cluster: Cluster | None) -> Iterator[None]:
    """Raise UserError, naming the workers, if the block fails because others are lost."""
    try:
        yield
    except LOST_WORKER_ERRORS as error:
        lost = find_lost(cluster) if cluster else []
        if not cluster or not lost:
            raise
        names = " and ".join(map(cluster.name, lost))
        raise UserError(
            f"{names} ended or does not answer: see its own messages; start all workers again to "
            "resume from the last checkpoint"
        ) from error


class Devices:
    """The replicas that train together, as one of their processes sees them."""

    def __init__(
        self, strategy: tf.distribute.Strategy | None = None, cluster: Cluster | None = None
    ) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()
        self.cluster = cluster
        self.replicas = self.strategy.num_replicas_in_sync
        self.workers = len(cluster.addresses) if cluster else 1
        self.index = cluster.index if cluster else 0
        # Only the chief writes.
        self.is_chief = self.index == 0
        self._local_replicas = self.replicas // self.workers
        self._sum = tf.function(self._sum_over_workers)

    @property
    def worker_slice(self) -> WorkerSlice:
        """The part of each batch that this worker prepares."""
        return WorkerSlice(self.index, self.workers)

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

        def shares(*batch: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.range(self._local_replicas).map(
                lambda i: tf.nest.map_structure(lambda each: each[i * size : (i + 1) * size], batch)
            )

        # Every worker has as many batches as the others, so none need ask whether they have more.
        self.strategy.extended.experimental_enable_get_next_as_optional = False
        return self.strategy.distribute_datasets_from_function(
            lambda _: batches.flat_map(shares) if self._local_replicas > 1 else batches
        )

    def agree(self, received: signal.Signals | None) -> tuple[signal.Signals | None, float]:
        """Return any worker's signal, or None, and the seconds of the chief's clock.

        What is decided by them is then decided alike on every worker.
        """
        now = time.monotonic()
        if self.workers == 1:
            return received, now
        mine = [received == signal.SIGTERM, received == signal.SIGINT, now * self.is_chief]
        terminated, interrupted, now = self._total(mine)
        if terminated or interrupted:
            received = signal.SIGTERM if terminated else signal.SIGINT
        return received, now

    def check_same_step(self, step: int) -> None:
        """Raise UserError, on every worker, unless each resumes from the chief's step."""
        if not self.cluster:
            return
        mine = [step if index == self.index else 0 for index in range(self.workers)]
        steps = self._total(mine)
        for index, other in enumerate(steps):
            if other != steps[0]:
                raise UserError(
                    f"{self.cluster.name(index)} resumes from another step than the chief: "
                    "--model_dir must be a folder that all workers share"
                )

    def chief_first(self, function: Callable[[], T]) -> T:
        """Call the function on the chief, then on the others. Return its result."""
        if self.is_chief:
            result = function()
            self.wait_for_all()
            return result
        self.wait_for_all()
        return function()

    def wait_for_all(self) -> None:
        """Return when every worker has called this."""
        if self.workers > 1:
            self._total([0.0])

    def read(self, variables: Sequence[tf.Variable]) -> list[np.ndarray]:
        """Return the values of variables; to be called on all workers together."""

        def values() -> list[tf.Tensor]:
            return [tf.convert_to_tensor(each) for each in variables]

        # Compiled, like everything that takes several workers: if one of them is lost meanwhile, an
        # eager reduction leaves a pool of threads behind, which fails when the interpreter exits.
        tensors = tf.function(values)() if self.workers > 1 else values()
        return [each.numpy() for each in tensors]

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

        tf.function(lambda: self.strategy.run(spread))()

    def make_averaging(self, network: keras.Model) -> Callable[[], None]:
        """Return a function that averages BatchNormalization's statistics over the replicas.

        The statistics are running means, so it does not matter how often they are averaged.
        """
        variables = [each for each in network.non_trainable_variables if "float" in each.dtype]
        if self.replicas == 1 or not variables:
            return lambda: None

        @tf.function
        def average() -> None:
            each = self.strategy.run(lambda: [tf.convert_to_tensor(each) for each in variables])
            for variable, values in zip(variables, each, strict=True):
                variable.assign(self.strategy.reduce("MEAN", values, axis=None))

        return average

    def _total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums over workers."""
        return self._sum(tf.constant(numbers, tf.float64)).numpy().tolist()

    def _sum_over_workers(self, numbers: tf.Tensor) -> tf.Tensor:
        shares = self.strategy.run(lambda: numbers / self._local_replicas)
        return self.strategy.reduce("SUM", shares, axis=None)


def synchronize_batch_norm(network: keras.Model) -> None:
    """Make every BatchNormalization use the statistics of all replicas' images, not its own."""
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
