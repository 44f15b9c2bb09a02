"""Programs that benchmarks start: this project's, and peers'."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Called:
    """What a program printed and took: its seconds, and processor seconds of all its processes."""

    output: str
    seconds: float
    cpu_seconds: float


def call(command: Sequence[object], *, check: bool = True) -> Called:
    """Run a program in the project's folder; exit if it fails and `check` is true."""
    start, before = time.perf_counter(), os.times()
    words = list(map(str, command))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, os.times()
    if check and done.returncode:
        sys.exit(
            f"{' '.join(words)} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    user = after.children_user - before.children_user
    return Called(done.stdout, seconds, user + after.children_system - before.children_system)


def call_project(program: str, *arguments: object) -> Called:
    """Run `run.py` or `convert_dataset.py` of this checkout."""
    return call([sys.executable, ROOT / program, *arguments])


def convert(split: str, source: str | Path, folder: str | Path, *options: object) -> None:
    """Convert the images of one split into `folder`."""
    names = ("--tfrecord_filename", split, "--tfrecord_dir", folder)
    call_project("convert_dataset.py", "--dataset_dir", source, *names, *options)
