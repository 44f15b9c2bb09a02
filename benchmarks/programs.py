"""Programs that benchmarks start: this project's, and peers'."""

import resource
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
    start, worked = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN)
    words = list(map(str, command))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if check and done.returncode:
        sys.exit(
            f"{' '.join(words)} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return Called(done.stdout, seconds, cpu_seconds(resource.RUSAGE_CHILDREN) - worked)


def cpu_seconds(whose: int = resource.RUSAGE_SELF) -> float:
    """Return the processor seconds used so far by this process, or by children that have ended."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def call_project(program: str, *arguments: object) -> Called:
    """Run `run.py` or `convert_dataset.py` of this checkout."""
    return call([sys.executable, ROOT / program, *arguments])


def convert(split: str, source: str | Path, folder: str | Path, *options: object) -> None:
    """Convert the images of one split into `folder`."""
    names = ("--tfrecord_filename", split, "--tfrecord_dir", folder)
    call_project("convert_dataset.py", "--dataset_dir", source, *names, *options)
