"""Rehearse a training by several workers on this machine: `make cluster_test`.

    python -m tests.rehearsal [--workers 2] [options of run.py]

All workers are processes of this machine, and train on its CPU.

1. They train to the end, without an interruption.
2. They train again, and the chief is killed halfway. The others must end, naming it.
3. All are started again and resume. Checkpoint, history and best snapshot must be those of the
   uninterrupted run, to the bit.
4. A single worker resumes from the same checkpoint. It must train on the same batches.

Without options of run.py, the training is a short one on the bundled sample. It ends with exit
code 1 after the first difference, and leaves the folder to look at.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from library.errors import SettingsError, UserError, run_main
from library.saving.checkpoints import Checkpoints, read_state
from project.commands.setup import read_data, start_tensorflow
from project.settings import read_settings
from tests.helpers.workers import Worker, newest_checkpoint, start_workers
from tests.kills import read_training

SAMPLE = ["--config_set=sample", "--train_epochs=3", "--no-report"]
# Long enough for the slowest training; a worker that waits for a lost one ends by itself.
SECONDS = 24 * 3600
# How many of the batches after the restart are compared.
BATCHES = 20
# What `read_training` returns.
RESULTS = ("history.csv", "the best snapshot", "the last step", "the last checkpoint")


def main(arguments: Sequence[str]) -> None:
    """Rehearse; print what happens. Raise UserError at the first difference."""
    parser = argparse.ArgumentParser(
        prog="make cluster_test", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--workers", type=int, default=2, help="number of workers")
    options, training = parser.parse_known_args(arguments)
    if options.workers < 2:
        raise SettingsError(f"--workers {options.workers}: a cluster has at least 2")
    # The workers would share the GPUs, whose results are not repeatable to the bit.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    home = Path(tempfile.mkdtemp(prefix="cluster_test-"))
    rehearsal = Rehearsal(home, training or SAMPLE)
    print(f"In {home}: run.py {shlex.join(rehearsal.training)}", flush=True)
    try:
        rehearsal.run(options.workers)
    finally:
        for each in rehearsal.started:
            each.send_signal(signal.SIGKILL)
        if not rehearsal.wanted:
            shutil.rmtree(home)
    shutil.rmtree(home)


class Rehearsal:
    """Trainings with the same options, each in a folder of its own."""

    def __init__(self, home: Path, training: Sequence[str]) -> None:
        self.home, self.training = home, list(training)
        self.started: list[Worker] = []
        self.wanted: list = []  # of the uninterrupted run

    def run(self, count: int) -> None:
        """Rehearse with `count` workers. Raise UserError at the first difference."""
        whole, killed, single = (self.home / name for name in ("whole", "killed", "single"))
        begin = time.monotonic()
        finish(self.start(whole, count))
        self.wanted = read_training(whole)
        steps = newest_checkpoint(whole / "run")
        say(1, f"{count} workers made {steps} steps in {time.monotonic() - begin:.0f} s")

        error = self.kill(killed, count, steps // 2)
        step = newest_checkpoint(killed / "run")
        say(2, f"worker 0 was killed after step {step}, and worker {count - 1} ended: {error}")
        shutil.copytree(killed / "run" / "checkpoints", single / "run" / "checkpoints")

        finish(self.start(killed, count))
        mine = read_training(killed)
        for name, found, expected in zip(RESULTS, mine, self.wanted, strict=False):
            if found != expected:
                raise UserError(f"{name} differs from that of the uninterrupted run: {self.home}")
        same = f"{len(mine[0])} rows of history.csv, best snapshot and {len(mine[3])} variables"
        say(3, f"{count} workers resumed from step {step}: {same} are the same to the bit")

        if read_settings(self.training).project.shard_by_file:
            say(4, "omitted: with --shard_by_file, the batches depend on the number of workers")
            return
        hashes = [self.hash_batches(single, each) for each in (1, count)]
        finish(self.start(single, 1))
        if hashes[0] != hashes[1]:
            raise UserError(f"1 and {count} workers train on different batches: {self.home}")
        rows = read_training(single)[0][-1], self.wanted[0][-1]
        losses = [float(each["validation_loss"]) for each in rows]
        say(
            4,
            f"1 worker resumed from step {step}: the next {len(hashes[0])} batches are the same; "
            f"validation loss {losses[0]:.5f}, of {count} workers {losses[1]:.5f}",
        )

    def start(self, folder: Path, count: int, *more: str) -> list[Worker]:
        """Start workers that train into `run` in a folder."""
        workers = start_workers(count, [*self.options(folder), *more])
        self.started += workers
        return workers

    def options(self, folder: Path) -> list[str]:
        """Return arguments of run.py to train into `run` in a folder."""
        run = folder / "run"
        places = [f"--run_dir={run}", f"--model_dir={run / 'checkpoints'}"]
        places += [f"--best_model_dir={run / 'best'}", "--trackers=", "--resume=auto"]
        return [*self.training, *places]

    def kill(self, folder: Path, count: int, step: int) -> str:
        """Train, and kill the chief after a step. Return the last words of the last worker."""
        # More checkpoints than the uninterrupted run: when they are saved must not matter.
        workers = self.start(folder, count, "--save_checkpoints_secs=0.5")
        run = folder / "run"
        while newest_checkpoint(run) < step and all(each.poll() is None for each in workers):
            time.sleep(0.01)
        time.sleep(0.2)  # Some steps later, which are lost.
        workers[0].send_signal(signal.SIGKILL)
        ends = [each.finish(SECONDS) for each in workers]
        if ends[0][0] != -signal.SIGKILL:
            finish(workers)
            raise UserError("the training ended before it could be killed: train more epochs")
        code, error = ends[-1][0], last_line(ends[-1][1])
        if code != 1 or "worker 0 (" not in error:
            raise UserError(f"the last worker must name the lost one: exit code {code}, {error}")
        return error

    def hash_batches(self, folder: Path, count: int) -> list[bytes]:
        """Return a hash of each batch that comes next, as `count` workers together prepare it."""
        settings = read_settings(self.options(folder))
        start_tensorflow(settings.project)
        from library.inputs.worker_slice import WorkerSlice
        from project import assembly

        state = read_state(Checkpoints(folder / "run" / "checkpoints").paths()[0])
        # As a training does, because the shuffle depends on it.
        assembly.seed_everything(settings)
        (split,) = read_data(settings.project, "train")
        workers = [
            assembly.make_training_inputs(settings, split, part)
            for part in WorkerSlice(count=count).siblings()
        ]
        shares = [each.batches(state["epoch"], state["batch"]).take(BATCHES) for each in workers]
        hashes = []
        for batch in zip(*shares, strict=True):
            images, labels = (np.concatenate(each) for each in zip(*batch, strict=True))
            hashes.append(hashlib.sha256(images.tobytes() + labels.tobytes()).digest())
        return hashes


def finish(workers: Sequence[Worker]) -> None:
    """Wait for the end of all workers. Raise UserError with the last line of one that failed."""
    for number, each in enumerate(workers):
        code, said = each.finish(SECONDS)
        if code:
            raise UserError(f"worker {number} ended with exit code {code}: {last_line(said)}")


def last_line(said: str) -> str:
    """Return the last line of what a worker wrote to stderr."""
    return said.splitlines()[-1] if said else "it wrote nothing"


def say(number: int, text: str) -> None:
    """Print what happened."""
    print(f"{number}. {text}", flush=True)


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:], "cluster_test"))
