"""The workers that train together: their addresses, waiting for them, and finding lost ones.

The addresses are in TF_CONFIG, which Vertex AI sets and docs/cluster.md explains for others; under
Slurm, in the environment of `srun`. The first worker is the chief, which alone writes.
"""

import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from library.errors import SettingsError, UserError, reason_of
from library.files import parse_json
from library.tensorflow_import import import_tensorflow

logger = logging.getLogger(__name__)

# How often a worker says whom it waits for.
WAITING_SECONDS = 15.0
# The first bytes of a gRPC client. A running server answers them, unlike the kernel of its machine.
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Cluster:
    """The workers of a training."""

    addresses: tuple[str, ...]  # host:port, the chief's first
    index: int  # of this process

    def name(self, index: int) -> str:
        """Return the name of a worker in a message."""
        return f"worker {index} ({self.addresses[index]})"

    def others(self) -> list[int]:
        """Return the indices of the other workers."""
        return [each for each in range(len(self.addresses)) if each != self.index]


def read_cluster(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """Return the Cluster that the environment describes; None for a single worker.

    Raises:
        SettingsError: A variable, which is named, is malformed.
    """
    if environ.get("TF_CONFIG", "").strip():
        return _read_tf_config(environ["TF_CONFIG"])
    if _read_count(environ, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in environ:
        return _read_slurm(environ)
    return None


def _read_tf_config(text: str) -> Cluster | None:
    try:
        config = parse_json(text)
        jobs = config.get("cluster") or {}
        task = config.get("task") or {}
        workers = [(job, i) for job in ("chief", "worker") for i in range(len(jobs.get(job, ())))]
        addresses = [jobs[job][index] for job, index in workers]
        mine = (task.get("type"), int(task.get("index", 0)))
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise SettingsError(
            f"TF_CONFIG can't be read ({error}): it must look like "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if len(workers) < 2 and mine[0] in (None, "chief", "worker"):
        return None
    if mine not in workers:
        raise SettingsError(
            f"TF_CONFIG: task {mine[0]} {mine[1]} is not in its cluster, which has "
            f"{', '.join(f'{job} {index}' for job, index in workers) or 'no worker'}; "
            "parameter servers and evaluators are not supported"
        )
    return _checked("TF_CONFIG", addresses, workers.index(mine))


def _read_slurm(environ: Mapping[str, str]) -> Cluster:
    import_tensorflow(choose_devices=lambda: False)
    from tensorflow import distribute

    # Jobs that share a node must not share ports.
    port = 10_000 + _read_count(environ, "SLURM_JOB_ID", 0) % 1000 * 20
    try:
        # Only for the addresses. Slurm itself assigns the GPUs (--gpus-per-task); the resolver
        # fails to divide them if each task already sees only its own.
        most = int(max(re.findall(r"\d+", environ["SLURM_STEP_TASKS_PER_NODE"]), key=int))
        resolver = distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=most, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
        index = resolver.get_task_info()[1]
    except (KeyError, ValueError, RuntimeError) as error:
        raise SettingsError(f"the SLURM_… variables can't be read: {error}") from None
    return _checked("SLURM_STEP_NODELIST", addresses, index)


def _read_count(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not re.fullmatch(r"[0-9]+", text):
        raise SettingsError(f"{name} is {text!r}, not a whole number")
    return int(text)


def _checked(variable: str, addresses: Sequence[str], index: int) -> Cluster:
    for address in addresses:
        if not re.fullmatch(r"[^\s:]+:\d{1,9}|\[[^\s\]]+\]:\d{1,9}", str(address)):
            raise SettingsError(f"{variable}: {address!r} is not host:port")
        if not 0 < _host_and_port(address)[1] < 2**16:
            raise SettingsError(f"{variable}: the port of {address!r} is not one of 1 to 65535")
    if len(set(addresses)) < len(addresses):
        raise SettingsError(f"{variable}: two workers have the same address, {addresses}")
    return Cluster(tuple(addresses), index)


def wait_for_workers(cluster: Cluster, seconds: float) -> None:
    """Return when every worker of the cluster has been seen at its port.

    Raises:
        UserError: This worker's own port is taken, or others, which are named, did not appear
            within `seconds`.
    """
    own = cluster.addresses[cluster.index]
    missing = cluster.others()
    deadline, said = time.monotonic() + seconds, time.monotonic()
    with _listening(own):
        while missing:
            missing = [each for each in missing if not _accepts(cluster.addresses[each])]
            if missing and time.monotonic() > deadline:
                names = " and ".join(map(cluster.name, missing))
                raise UserError(
                    f"{names} did not appear within {seconds:g} s (--worker_wait_secs): check that "
                    "each worker is started and reachable"
                )
            if missing and time.monotonic() > said + WAITING_SECONDS:
                said = time.monotonic()
                log_waiting(cluster, missing)
            if missing:
                time.sleep(0.2)


@contextlib.contextmanager
def log_while_waiting(cluster: Cluster) -> Iterator[None]:
    """Log from time to time, while the block waits for them, which workers do not answer."""
    done = threading.Event()

    def log() -> None:
        while not done.wait(WAITING_SECONDS):
            if lost := find_lost(cluster, 1):
                log_waiting(cluster, lost)

    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def log_waiting(cluster: Cluster, missing: Iterable[int]) -> None:
    """Log which workers this one waits for."""
    logger.info("waiting for %s", " and ".join(map(cluster.name, missing)))


def find_lost(cluster: Cluster, seconds: float = 5) -> list[int]:
    """Return the indices of the workers that do not answer within `seconds`."""
    return [each for each in cluster.others() if not _answers(cluster.addresses[each], seconds)]


def _listening(address: str) -> socket.socket:
    """Listen at this worker's port until TensorFlow does, so that others see it."""
    host, port = _host_and_port(address)
    try:
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise UserError(
            f"this worker's port {port} (of {host}:{port}) can't be used: {reason_of(error)}"
        ) from None


def _accepts(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), timeout=2).close()
    except OSError:
        return False
    return True


def _answers(address: str, seconds: float) -> bool:
    try:
        with socket.create_connection(_host_and_port(address), timeout=seconds) as connection:
            connection.sendall(HTTP2_GREETING)
            return bool(connection.recv(1))
    except OSError:
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
