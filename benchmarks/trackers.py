"""How fast training is with the MLflow tracker, beside training without one.

    python -m benchmarks.trackers [--server up|down] [--pairs 4] [--epochs 12] [--data_dir …]

Trainings of the small network on the converted sample (`make sample`) alternate, with and without
the tracker; each tracked one starts its own sending process, which imports MLflow. Printed are the
seconds of `fit`, the processor seconds of this process, and those of the sending process; the last
line is a JSON object with the medians of the ratios of neighboring trainings. With `--server up` an
MLflow server runs on this machine, at the lowest priority, as if it were another machine; with
`down`, nothing listens.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from library.logging import start_logging
from library.tensorflow_import import import_tensorflow

import_tensorflow()

import keras

from library.training.distribution import Devices
from project import assembly
from project.commands.setup import read_data
from project.settings import read_settings
from project.trackers import SENDER


def start_server(folder: Path, port: int) -> subprocess.Popen:
    """Start an MLflow server, and wait until it answers."""
    command = [
        *("nice", "-n", "19", sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            return server
        except OSError:
            if server.poll() is not None:
                sys.exit((folder / "server.log").read_text())
            time.sleep(0.2)


def measure(folder: Path, options: argparse.Namespace, trackers: str) -> dict[str, float]:
    """Train once. Return seconds, processor seconds, and those of the sending process."""
    run_dir = folder / "run"
    shutil.rmtree(run_dir, ignore_errors=True)
    settings = read_settings(
        [
            *("--data_dir", options.data_dir, "--run_dir", str(run_dir), "--trackers", trackers),
            *("--model", "simple", "--image_size", "28", "--channels", "1", "--batch_size", "64"),
            *("--train_epochs", str(options.epochs), "--save_summary_steps", "10"),
        ]
    )
    keras.utils.clear_session(free_memory=False)
    splits = read_data(settings.project, "train", "validation")
    trainer = assembly.make_trainer(settings, splits, Devices())
    start = time.perf_counter(), time.process_time()
    trainer.fit()
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    SENDER.finish()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    sending = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": seconds[0],
        "processor_seconds": seconds[1],
        "sending_processor_seconds": sending,
        "seconds_at_the_end": time.perf_counter() - began,
    }


def main() -> None:
    """Print the figures of each training, and the medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", choices=("up", "down"), default="up")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--data_dir", default="dataset/sample")
    options = parser.parse_args()
    start_logging("ERROR")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = start_server(folder, port) if options.server == "up" else None
        try:
            results = compare(folder, options)
        finally:
            if server:
                server.terminate()
                server.wait()
    print(json.dumps({"server": options.server, **results}))


def compare(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Train in pairs, in both orders. Return the medians of the ratios: above 1 is faster."""
    warm_up = argparse.Namespace(**{**vars(options), "epochs": 1})
    measure(folder, warm_up, "none")
    pairs = []
    for pair in range(options.pairs):
        found = {}
        for trackers in ("none", "mlflow")[:: 1 if pair % 2 else -1]:
            found[trackers] = measure(folder, options, trackers)
            numbers = {key: round(value, 2) for key, value in found[trackers].items()}
            print(trackers, numbers, flush=True)
        pairs.append(found)
    ratios = {
        key: statistics.median(each["none"][key] / each["mlflow"][key] for each in pairs)
        for key in ("seconds", "processor_seconds")
    }
    ends = statistics.median(each["mlflow"]["seconds_at_the_end"] for each in pairs)
    return {
        "speed": round(ratios["seconds"], 4),
        "speed_by_processor_time": round(ratios["processor_seconds"], 4),
        "seconds_at_the_end": round(ends, 2),
    }


if __name__ == "__main__":
    main()
