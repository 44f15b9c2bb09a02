"""One device, several GPUs, or several workers: what the training has to know of them.

- One device: no strategy at all, and nothing below costs anything.
- Several GPUs in one machine: tf.distribute.MirroredStrategy.
- Several workers (library/training/cluster.py): tf.distribute.MultiWorkerMirroredStrategy.

Each step's batch is divided among the replicas in its order, so that they make together the very
steps that one device would make.
"""

import contextlib
import signal
import time

import keras
import tensorflow as tf

from library.errors import SettingsError, UserError
from library.inputs.worker_slice import WorkerSlice
from library.messages import counted
from library.training.cluster import find_lost, wait_for_workers

# What a collective operation fails with when a worker is gone.
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


def choose_devices(
    num_gpus=None, *, gpu_growth=False, intra_op_threads=None, inter_op_threads=None
):
    """Tell TensorFlow what to use. Only before its devices are started.

    `num_gpus` None means all there are (all that CUDA_VISIBLE_DEVICES shows), 0 the CPU. Raises
    SettingsError if there are fewer.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if num_gpus is not None:
        if num_gpus > len(gpus):
            raise SettingsError(f"num_gpus {num_gpus}: this machine shows {len(gpus)}")
        gpus = gpus[:num_gpus]
        tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus if gpu_growth else ():
        tf.config.experimental.set_memory_growth(gpu, True)
    if intra_op_threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
    if inter_op_threads is not None:
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads)


def start_devices(cluster=None, wait_seconds=300):
    """Return the Devices: all GPUs that were chosen, those of every worker if there is a Cluster.

    Raises UserError, naming them, if other workers are not there within `wait_seconds`.
    """
    if cluster is None:
        gpus = tf.config.list_logical_devices("GPU")
        return Devices(tf.distribute.MirroredStrategy(gpus) if len(gpus) > 1 else None)
    wait_for_workers(cluster, wait_seconds)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )
    with naming_lost(cluster):
        return Devices(tf.distribute.MultiWorkerMirroredStrategy(resolver), cluster)


@contextlib.contextmanager
def naming_lost(cluster):
    """Within the block, an error that comes of another worker's end names that worker."""
    try:
        yield
    except LOST as error:
        lost = find_lost(cluster) if cluster else ()
        if not lost:
            raise
        names = " and ".join(map(cluster.name, lost))
        raise UserError(
            f"{names} ended or fell silent: see what it says itself; start all workers again to "
            "go on from the last checkpoint"
        ) from error


class Devices:
    """The replicas that train together, as one of their processes sees them."""

    def __init__(self, strategy=None, cluster=None):
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
    def part(self):
        """Which part of each batch this worker prepares."""
        return WorkerSlice(self.index, self.workers)

    def describe(self, batch_size):
        """Return a few words for the start: how many of what, and each one's share of a batch."""
        device = (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0]
        if self.replicas == 1:
            return device.name
        workers = f" of {self.workers} workers" if self.workers > 1 else ""
        each = counted(batch_size // self.replicas, "image")
        return f"{self.replicas} {device.device_type}s{workers}, {each} a step on each"

    def check_batch_size(self, name, size):
        """Raise SettingsError if a batch can't be divided among the replicas."""
        if size % self.replicas:
            below = size // self.replicas * self.replicas
            could = f"{below} or {below + self.replicas}" if below else self.replicas
            raise SettingsError(
                f"{name} {size} can't be divided among {self.replicas} replicas: {could} could"
            )

    def divide(self, batches, batch_size):
        """Return this worker's batches of a tf.data.Dataset as one share for each of its replicas.

        Replica i of n takes the i-th n-th of a full batch; a smaller last one leaves the last
        replicas with less, or none.
        """
        if self.replicas == 1:
            return batches
        self.check_batch_size("a batch of", batch_size)
        size = batch_size // self.replicas

        def shares(*batch):
            return tf.data.Dataset.range(self._local_replicas).map(
                lambda i: tf.nest.map_structure(lambda each: each[i * size : (i + 1) * size], batch)
            )

        # Every worker has as many batches as the others, so none need ask whether they have more.
        self.strategy.extended.experimental_enable_get_next_as_optional = False
        return self.strategy.distribute_datasets_from_function(
            lambda _: batches.flat_map(shares) if self._local_replicas > 1 else batches
        )

    def agree(self, received):
        """Return the (signal or None, seconds) that hold for all: any one's signal, chief's clock.

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

    def check_same(self, number, complaint):
        """Raise UserError, on every worker, unless each has the chief's (whole) number.

        The complaint is a text with a place for the name of the first `{worker}` that differs.
        """
        if self.workers == 1:
            return
        mine = [number if index == self.index else 0 for index in range(self.workers)]
        numbers = self._total(mine)
        for index, other in enumerate(numbers):
            if other != numbers[0]:
                raise UserError(complaint.format(worker=self.cluster.name(index)))

    def chief_first(self, function):
        """Call the function on the chief, then on the others. Give what it gives."""
        if self.is_chief:
            result = function()
            self.wait_for_all()
            return result
        self.wait_for_all()
        return function()

    def wait_for_all(self):
        """Return when every worker has come here."""
        if self.workers > 1:
            self._total([0.0])

    def read(self, variables):
        """Return the values of Keras or TensorFlow variables, as arrays. Takes all workers."""

        def values():
            return [tf.convert_to_tensor(each) for each in variables]

        # Compiled, as all that takes several workers: where one of them is lost meanwhile, an eager
        # reduction leaves a pool of threads behind, which fails when the interpreter ends.
        tensors = tf.function(values)() if self.workers > 1 else values()
        return [each.numpy() for each in tensors]

    def spread_seeds(self, network):
        """Let each replica drop out features of its own: its seeds differ by its number.

        To be called whenever all have the same, as after the start and after a resume.
        """
        states = [each for each in network.variables if "int" in each.dtype and each.shape == (2,)]
        if self.replicas == 1 or not states:
            return

        def spread():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in states:
                value = tf.convert_to_tensor(state)
                state.assign(value + tf.cast(tf.stack([number, 0]), value.dtype))

        tf.function(lambda: self.strategy.run(spread))()

    def make_averaging(self, network):
        """Return a function that gives all replicas the mean of their own statistics.

        That is, of what BatchNormalization keeps. Those are running means, so it does not matter
        how often they are averaged.
        """
        variables = [each for each in network.non_trainable_variables if "float" in each.dtype]
        if self.replicas == 1 or not variables:
            return lambda: None

        @tf.function
        def average():
            each = self.strategy.run(lambda: [tf.convert_to_tensor(each) for each in variables])
            for variable, values in zip(variables, each, strict=True):
                variable.assign(self.strategy.reduce("MEAN", values, axis=None))

        return average

    def _total(self, numbers):
        """Return the sums over workers, as a list of float."""
        return self._sum(tf.constant(numbers, tf.float64)).numpy().tolist()

    def _sum_over_workers(self, numbers):
        shares = self.strategy.run(lambda: numbers / self._local_replicas)
        return self.strategy.reduce("SUM", shares, axis=None)


def synchronize_batch_norm(network):
    """Let every BatchNormalization take its mean over all replicas' images, not over its own."""
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
