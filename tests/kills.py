"""Kill each kind of work at random times, resume it, and compare: `make kills`.

    python -m tests.kills [300] [--seed 0] [--kinds cluster export]

Conversion, training with both engines, evaluation, export, a search and a cluster of two workers,
each on tiny data. The result of each must equal that of one that nobody killed, and nothing may be
left: no partial file, no lock, nothing in the temporary folder. It ends with exit code 1 after the
first difference, and leaves the folder to look at.
"""

import argparse
import collections
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import convert, write_colors
from tests.helpers.workers import Worker, start_workers

TRAINING = [
    *(
        "--model=simple",
        "--image_size=8",
        "--batch_size=16",
        "--train_epochs=4",
        "--learning_rate=0.01",
    ),
    *("--dropout_rate=0.1", "--no-report", "--bootstrap_samples=20", "--save_checkpoints_secs=0.2"),
]
LEFT_BEHIND = (".*.partial", "*.previous", ".*.converting", "*.lock", "*__autograph*")
SECONDS = 600


@dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes:
        prepare: Makes what the work starts from in an empty folder.
        start: Starts the processes in this folder.
        read: Returns what must be equal, once the work is done.
        share: How often it is killed, beside the others.
    """

    prepare: Callable[[Path], None]
    start: Callable[[Path], Sequence[Worker]]
    read: Callable[[Path], Any]
    share: int


def start_conversion(folder: Path) -> list[Worker]:
    """Start converting the training images."""
    arguments = ["--dataset_dir", str(folder / "images"), "--tfrecord_filename", "train"]
    arguments += ["--tfrecord_dir", str(folder / "shards"), "--num_shards", "5"]
    return [Worker(arguments, module="convert_dataset")]


def read_shards(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files, without the path of the images and the hash that covers it."""
    files = {each.name: each.read_bytes() for each in sorted((folder / "shards").iterdir())}
    manifest = json.loads(files["train.manifest.json"])
    del manifest["settings"]["source"], manifest["sha256"]
    return files | {"train.manifest.json": json.dumps(manifest).encode()}


def run_options(folder: Path, *arguments: str) -> list[str]:
    """Return arguments of run.py to train on the data, into `run` in a folder."""
    places = [f"--data_dir={folder.parent / 'data'}", f"--run_dir={folder / 'run'}"]
    return [*arguments, *places, *TRAINING]


def start_run(folder: Path, *arguments: str) -> Worker:
    """Start run.py on the data, into `run` in a folder."""
    return Worker(run_options(folder, *arguments))


def read_training(folder: Path) -> list:
    """Return the history, the best snapshot's metrics, and the last checkpoint's variables."""
    run = folder / "run"
    with (run / "history.csv").open() as file:
        rows = [
            {key: value for key, value in row.items() if key != "images_per_second"}
            for row in csv.DictReader(file)
        ]
    newest = max((run / "checkpoints").glob("step_*"))
    with np.load(newest / "variables.npz") as saved:
        variables = {name: saved[name].tobytes() for name in saved.files}
    best = json.loads((run / "best" / "metrics.json").read_text())
    # Which came before depends on the clock.
    kept = len(list((run / "checkpoints").iterdir()))
    return [rows, best, newest.name, variables, kept]


def read_evaluation(folder: Path) -> list:
    """Return the metrics, and the names of all files."""
    run = folder / "run" / "evaluation"
    summary = json.loads((run / "test.json").read_text())
    summary.pop("snapshot"), summary.pop("members")
    return [summary, sorted(each.name for each in run.iterdir())]


def start_search(folder: Path) -> list[Worker]:
    """Start a search of four trials."""
    space = folder / "space.yaml"
    space.write_text("tiny:\n  width: {choices: [4, 8]}\n  adam_beta1: [0.5, 0.95]\n")
    options = [f"--hyperparameter_file={space}", "--search_space=tiny", "--trials=4"]
    return [start_run(folder, "search", *options)]


def read_search(folder: Path) -> list[dict[str, str]]:
    """Return a row for each trial, without the time that it took."""
    with (folder / "run" / "trials.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


def read_export(folder: Path) -> list:
    """Return the names of the files and the variables, which all versions share."""
    exports = folder / "run" / "export"
    found = set()
    # Who is killed after the last write makes a further version when started again.
    for version in (exports / "model").iterdir():
        (variables,) = version.rglob("variables.data-*")
        names = sorted(each.relative_to(version).as_posix() for each in version.rglob("*"))
        found.add((*names, variables.read_bytes()))
    return [sorted(each.name for each in exports.iterdir()), found]


def make_works(data: Path, trained: Path) -> dict[str, Work]:
    """Return all kinds of work.

    Args:
        data: The folder of converted splits and of images.
        trained: A finished run.
    """

    def copy_run(folder: Path) -> None:
        shutil.copytree(trained / "run", folder / "run")

    def nothing(folder: Path) -> None:
        pass

    def copy_images(folder: Path) -> None:
        shutil.copytree(data / "images", folder / "images")

    return {
        "conversion": Work(copy_images, start_conversion, read_shards, 5),
        "loop": Work(nothing, lambda folder: [start_run(folder)], read_training, 4),
        "fit": Work(nothing, lambda folder: [start_run(folder, "--engine=fit")], read_training, 2),
        "evaluation": Work(
            copy_run, lambda folder: [start_run(folder, "evaluate")], read_evaluation, 2
        ),
        "export": Work(copy_run, lambda folder: [start_run(folder, "export")], read_export, 2),
        "search": Work(nothing, start_search, read_search, 1),
        "cluster": Work(
            nothing,
            lambda folder: start_workers(2, run_options(folder, "--worker_wait_secs=20")),
            read_training,
            1,
        ),
    }


def finish(workers: Sequence[Worker]) -> None:
    """Wait for the end of all workers. Raise RuntimeError unless they end well."""
    for each in workers:
        code, said = each.finish(SECONDS)
        if code:
            raise RuntimeError(f"exit code {code}: {said}")


def kill(workers: Sequence[Worker], seconds: float, chosen: Sequence[Worker]) -> bool:
    """Kill the chosen workers after some seconds. Return whether any was still at work."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(each.poll() is None for each in workers):
        time.sleep(0.005)
    found = any(each.poll() is None for each in chosen)
    for each in chosen:
        each.send_signal(signal.SIGKILL)
    for each in workers:
        # Those that lost another one end by themselves, with a message.
        each.finish(SECONDS)
    return found


def find_leftovers(*folders: Path) -> list[str]:
    """Return what killed processes left."""
    found = [str(each) for pattern in LEFT_BEHIND for each in folders[0].rglob(pattern)]
    return found + [str(each) for folder in folders[1:] for each in folder.iterdir()]


def main() -> int:
    """Kill; print what happened; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=300, help="number of kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", help="kinds of work to kill; default: all")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    home = Path(tempfile.mkdtemp(prefix="kills-"))
    temporary = home / "temporary"
    temporary.mkdir()
    # For the processes that are started; this one's own is known already.
    os.environ |= {"TMPDIR": str(temporary), "TF_NUM_INTRAOP_THREADS": "1"}
    data = home / "data"
    for seed, (split, count) in enumerate((("train", 20), ("validation", 6), ("test", 6))):
        write_colors(data / split, count, seed=seed)
        convert(data / split, data, split)
    write_colors(data / "images", 300)
    trained = home / "trained"
    trained.mkdir()
    finish([start_run(trained)])
    works = make_works(data, trained)
    works = {name: works[name] for name in options.kinds or works}
    wanted, seconds = {}, {}
    for name, work in works.items():
        folder = home / f"{name}-whole"
        folder.mkdir()
        work.prepare(folder)
        begin = time.monotonic()
        finish(work.start(folder))
        wanted[name], seconds[name] = work.read(folder), time.monotonic() - begin
        print(f"{name}: {seconds[name]:.1f} s", flush=True)
    kills: collections.Counter[str] = collections.Counter()
    names, shares = list(works), [each.share for each in works.values()]
    while sum(kills.values()) < options.count:
        (name,) = chance.choices(names, shares)
        work, folder = works[name], home / f"{name}-{sum(kills.values())}"
        folder.mkdir()
        work.prepare(folder)
        for _ in range(chance.choice((1, 1, 2, 4))):
            workers = work.start(folder)
            chosen = chance.sample(workers, chance.randint(1, len(workers)))
            kills[name] += kill(workers, chance.uniform(0, seconds[name]), chosen)
        begin = time.monotonic()
        finish(work.start(folder))
        # The machine may become slower or faster meanwhile.
        seconds[name] = (3 * seconds[name] + max(0.5, time.monotonic() - begin)) / 4
        left = find_leftovers(folder, temporary)
        if left or work.read(folder) != wanted[name]:
            print(f"{name} differs after {sum(kills.values())} kills: {folder} {left}", flush=True)
            return 1
        shutil.rmtree(folder)
        print(f"{sum(kills.values())} kills: {dict(kills)}", end="\r", flush=True)
    print(f"{sum(kills.values())} kills, nothing lost, nothing left: {dict(kills)}")
    shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
