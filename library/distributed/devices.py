"""The devices of several workers, by tf.distribute.MultiWorkerMirroredStrategy."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tensorflow as tf
from tensorflow.python.eager import context

from library.distributed.cluster import Cluster, find_lost, log_while_waiting, wait_for_workers
from library.errors import UserError
from library.inputs.worker_slice import WorkerSlice
from library.logging import set_chief
from library.training.distribution import Devices

T = TypeVar("T")

# How long a worker tries to reach the chief, once all have been seen. TensorFlow would try for an
# hour, and it holds Python's global lock meanwhile: nothing could be logged, or interrupt it.
_CONNECT_SECONDS = 45

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


def start_workers(cluster: Cluster, wait_seconds: float) -> "ClusterDevices":
    """Start the chosen GPUs together with those of the other workers; only the chief logs.

    Raises:
        UserError: Other workers, which are named, did not appear within `wait_seconds`.
    """
    wait_for_workers(cluster, wait_seconds)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": len(tf.config.get_visible_devices("GPU"))},
        rpc_layer="grpc",
    )
    # As the strategy itself would, but for the timeout.
    job = context.coordination_config_pb2.CoordinatedJob(
        name="worker", num_tasks=len(cluster.addresses)
    )
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=round(1000 * _CONNECT_SECONDS),
        coordinated_jobs=[job],
    )
    with name_lost_workers(cluster), log_while_waiting(cluster):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    # Only now: until then, each worker says whom it waits for.
    set_chief(cluster.index == 0)
    return ClusterDevices(strategy, cluster)


@contextlib.contextmanager
def name_lost_workers(cluster: Cluster) -> Iterator[None]:
    """Raise UserError, naming the workers, if the block fails because others are lost."""
    try:
        yield
    except LOST_WORKER_ERRORS as error:
        lost = find_lost(cluster)
        if not lost:
            raise
        names = " and ".join(map(cluster.name, lost))
        raise UserError(
            f"{names} ended or does not answer: see its own messages; start all workers again to "
            "resume from the last checkpoint"
        ) from error


class ClusterDevices(Devices):
    """The replicas of all workers, as one of them sees them."""

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
        super().__init__(strategy, WorkerSlice(cluster.index, len(cluster.addresses)))
        self._cluster = cluster
        self._sum = tf.function(self._sum_over_workers, autograph=False)

    def explain_lost_workers(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that raises UserError, naming the workers, if others are lost."""
        return name_lost_workers(self._cluster)

    def agree(self, received: signal.Signals | None) -> tuple[signal.Signals | None, float]:
        """Return any worker's signal, or None, and the seconds of the chief's clock."""
        now = time.monotonic()
        mine = [received == signal.SIGTERM, received == signal.SIGINT, now * self.is_chief]
        terminated, interrupted, now = self._total(mine)
        if terminated or interrupted:
            received = signal.SIGTERM if terminated else signal.SIGINT
        return received, now

    def check_same_step(self, step: int) -> None:
        """Raise UserError, on every worker, unless each resumes from the chief's step."""
        mine = [step * (index == self._cluster.index) for index in range(self.workers)]
        steps = self._total(mine)
        for index, other in enumerate(steps):
            if other != steps[0]:
                raise UserError(
                    f"{self._cluster.name(index)} resumes from another step than the chief: "
                    "--model_dir must be a folder that all workers share"
                )

    def chief_first(self, function: Callable[[], T]) -> T:
        """Call the function on the chief, then on the others. Return its result."""
        if self.is_chief:
            result = function()
            self._wait_for_all()
            return result
        self._wait_for_all()
        return function()

    def _wait_for_all(self) -> None:
        self._total([0.0])

    def _total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums over workers."""
        return self._sum(tf.constant(numbers, tf.float64)).numpy().tolist()

    def _sum_over_workers(self, numbers: tf.Tensor) -> tf.Tensor:
        shares = self.strategy.run(lambda: numbers / self._local_replicas)
        return self.strategy.reduce("SUM", shares, axis=None)
