"""Workers as real processes on this machine, started as a cluster's platform would start them."""

import atexit
import contextlib
import functools
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from library.saving.checkpoints import Checkpoints
from tests.conftest import ROOT

OPTIONS = {
    "model": "simple",
    "image_size": 4,
    "batch_size": 16,
    "dropout_rate": 0,
    "learning_rate": 0.003,
    "learning_rate_decay_type": "fixed",
    "epochs_between_evals": 2,
    "train_epochs": 14,
    "save_summary_steps": 1,
    "synchronized_batch_norm": True,
    # Needs what all workers' replicas return.
    "best_metric": "macro_pr_auc",
}


def free_ports(count):
    """Ports that nobody uses, below those that the system gives to connections of its own."""
    ports = []
    while len(ports) < count:
        port = random.randrange(15_000, 30_000)
        try:
            socket.create_server(("", port)).close()
        except OSError:
            continue
        ports.append(port)
    return ports


def options(data_dir, run_dir, **more):
    given = {"data_dir": data_dir, "run_dir": run_dir, **OPTIONS, **more}
    # YAML spells booleans in lower case.
    values = {k: str(v).lower() if isinstance(v, bool) else v for k, v in given.items()}
    return [f"--{name}={value}" for name, value in values.items()]


class Worker:
    """A process that does what `python -m module` with these arguments and variables does."""

    _numbers = itertools.count()

    def __init__(self, arguments, environ=None, module="run"):
        folder, server = _server()
        said = folder / f"{next(self._numbers)}.txt"
        self._said, self._exit = said, Path(f"{said}.exit")
        job = {"module": module, "arguments": arguments, "environ": environ or {}}
        job["output"] = str(said)
        server.stdin.write(f"{json.dumps(job)}\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    def poll(self):
        """Return the exit code, None while there is none."""
        return int(self._exit.read_text()) if self._exit.exists() else None

    def finish(self, seconds=120):
        """Return (exit code, stderr) once it has ended."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(self.said())
            time.sleep(0.02)
        return self.poll(), self.said()

    def said(self):
        """Return its stderr so far."""
        return self._said.read_text() if self._said.exists() else ""

    def send_signal(self, number):
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@functools.cache
def _server():
    """Start the process that forks workers. Return the folder of their output, and the process."""
    folder = tempfile.TemporaryDirectory(prefix="workers")
    command = [sys.executable, "-W", "ignore", "-m", "tests.helpers.forking"]
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, cwd=ROOT, env=environ, **pipes)

    def end():
        with folder, server:
            server.stdin.close()

    atexit.register(end)
    return Path(folder.name), server


def start_two(data_dir, run_dir, module="run", **more):
    """Start two workers. Return them, the chief first."""
    return start_workers(2, options(data_dir, run_dir, **more), module)


def start_workers(count, arguments, module="run"):
    """Start a cluster of workers with the same arguments. Return them, the chief first."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    tasks = ({"type": "worker", "index": index} for index in range(count))
    configs = (json.dumps({"cluster": cluster, "task": task}) for task in tasks)
    return [Worker(arguments, {"TF_CONFIG": each}, module) for each in configs]


def newest_checkpoint(run_dir):
    """Return the step of the newest checkpoint, 0 if there is none."""
    return max(
        (int(each.name[5:]) for each in Checkpoints(run_dir / "checkpoints").paths()), default=0
    )


def wait_for_rows(run_dir, count, workers, seconds=60):
    """Return when history.csv has `count` more rows, while the workers run."""
    path = run_dir / "history.csv"

    def rows():
        return len(path.read_text().splitlines()) if path.exists() else 0

    wanted, deadline = rows() + count, time.monotonic() + seconds
    while rows() < wanted:
        assert time.monotonic() < deadline
        for each in workers:
            assert each.poll() is None, each.said()
        time.sleep(0.02)
