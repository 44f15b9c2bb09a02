"""Workers as real processes on this machine, started as a cluster's platform would start them."""

import json
import os
import random
import socket
import subprocess
import sys
import time

from tests.conftest import ROOT

OPTIONS = {
    "image_size": 8,
    "batch_size": 16,
    "dropout_rate": 0,
    "learning_rate": 0.003,
    "epochs_between_evals": 4,
    "train_epochs": 24,
    "save_summary_steps": 1,
    "synchronized_batch_norm": True,
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
    # YAML spells truth in small letters.
    values = {k: str(v).lower() if isinstance(v, bool) else v for k, v in given.items()}
    return [f"--{name}={value}" for name, value in values.items()]


def start(arguments, environ=None, program=("run.py",), **popen):
    """Start a process that trains."""
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environ or {})}
    command = [sys.executable, *program, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environ, **{"cwd": ROOT, **pipes, **popen})


def start_two(data_dir, run_dir, **more):
    """Start two workers. Give the processes, the chief first."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = ({"type": "worker", "index": index} for index in range(2))
    configs = (json.dumps({"cluster": cluster, "task": task}) for task in tasks)
    return [start(options(data_dir, run_dir, **more), {"TF_CONFIG": each}) for each in configs]


def finish(process, seconds=90):
    """Give (exit code, stderr) of a process once it has ended."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, errors


def wait_for_rows(run_dir, count, processes, seconds=60):
    """Return when history.csv has so many rows more than it had, and the workers still run."""
    path = run_dir / "history.csv"

    def rows():
        return len(path.read_text().splitlines()) if path.exists() else 0

    wanted, deadline = rows() + count, time.monotonic() + seconds
    while rows() < wanted:
        assert time.monotonic() < deadline
        for each in processes:
            assert each.poll() is None, each.communicate()[1]
        time.sleep(0.02)
