"""Contenders, each in a process of its own, measured in turn; ratios of neighboring runs.

The processes inherit the cores that this one may use, so all are pinned to the same cores. They
take turns, and the first one changes from round to round. A ratio is the median of the ratios
within the rounds, so that what slows the machine for minutes cancels out. Its interval is that of
the sign test: with 6 rounds or more, the true median lies in it with at least 95 % probability,
whatever the distribution; with fewer, it is the range.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


class ContenderError(Exception):
    """A contender's process failed; its arguments are the contender and the last line it wrote."""

    def __init__(self, contender: "Contender", reason: str) -> None:
        super().__init__(f"{contender.name}: {reason}")
        self.contender = contender


@dataclass(frozen=True)
class Contender:
    """What does some work.

    Attributes:
        name: For people: 'a Pillow loop'.
        function: 'module:function', as benchmarks/contender.py calls it.
        arguments: Its arguments, as str.format templates: '{photographs}' is a folder of data.
        in_peers: Whether it runs in the peers' environment.
        is_fresh: Whether each run is a process of its own, whose start counts.
    """

    name: str
    function: str
    arguments: tuple[str, ...] = ()
    in_peers: bool = False
    is_fresh: bool = False


@dataclass(frozen=True)
class Run:
    """One measured run.

    Attributes:
        seconds: Per unit of work.
        cpu_seconds: Processor seconds per unit of work, those of child processes included.
        load: The machine's load average of the last minute before it.
        other_cores: How many cores other processes used meanwhile.
    """

    seconds: float
    cpu_seconds: float
    load: float
    other_cores: float


class Process:
    """A contender's process.

    Args:
        contender: What to run.
        python: The interpreter.
        root: The checkout that it imports the project from.
        values: What the arguments' templates name.
    """

    def __init__(
        self, contender: Contender, python: str, root: Path, values: dict[str, object]
    ) -> None:
        self.contender = contender
        arguments = (each.format(**values) for each in contender.arguments)
        self._command = [python, "-m", "benchmarks.contender", contender.function, *arguments]
        self._root = root
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> Run:
        """Let the contender do its work once."""
        load, busy, start = os.getloadavg()[0], _busy_seconds(), time.perf_counter()
        if not self._process:
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
            self._process = subprocess.Popen(
                self._command, cwd=self._root, env=os.environ | quiet, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        # A new process has not used any, and what it uses until it is ready counts if it is fresh.
        worked = 0.0 if self.contender.is_fresh else self._cpu_seconds()
        try:
            print(file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            self._stop()  # It may still be writing its error.
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            named = [each for each in lines if "rror" in each] or lines
            raise ContenderError(self.contender, " ".join(named[-1:])) from error
        elapsed, measured = time.perf_counter() - start, answer["seconds"]
        worked = self._cpu_seconds() - worked
        others = max(0.0, _busy_seconds() - busy - worked) / elapsed
        seconds = measured / answer["amount"]
        if self.contender.is_fresh:
            self._stop()
            seconds += elapsed - measured
            return Run(seconds, worked * seconds / elapsed, load, others)
        return Run(seconds, worked / answer["amount"], load, others)

    def _cpu_seconds(self) -> float:
        """Return the processor seconds of the process and its descendants so far."""
        assert self._process
        process = psutil.Process(self._process.pid)
        total = 0.0
        for each in (process, *process.children(recursive=True)):
            # If it has just ended, its parent's figures include it.
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(each.cpu_times()[:4])
        return total

    def _stop(self) -> None:
        if self._process:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
            self._process = None

    def close(self) -> None:
        """End the process."""
        self._stop()
        self._errors.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _busy_seconds() -> float:
    """Return the processor seconds that all processes of the machine have used."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def take_turns(processes: Sequence[Process], rounds: int) -> list[list[Run]]:
    """Measure all processes in each round, after a run of each that is not counted.

    Returns:
        The runs of each process, one per round.
    """
    for process in processes:
        if not process.contender.is_fresh:
            process.run()
    runs: list[list[Run]] = [[] for _ in processes]
    for number in range(rounds):
        order = range(len(processes))
        for each in order if number % 2 else reversed(order):
            runs[each].append(processes[each].run())
    return runs


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as a peer: the median over rounds, and its interval.

    Attributes:
        median: By wall time; more than 1: faster than the peer.
        low: Lower end of the median's interval.
        high: Upper end.
        cpu: The median by processor time.
        slower_rounds: Number of rounds in which ours was slower.
        rounds: Number of rounds.
    """

    median: float
    low: float
    high: float
    cpu: float
    slower_rounds: int
    rounds: int


def compare(ours: Sequence[Run], peer: Sequence[Run]) -> Ratio:
    """Return how many times as fast ours is as the peer, round by round."""
    ratios = sorted(b.seconds / a.seconds for a, b in zip(ours, peer, strict=True))
    cpu = [b.cpu_seconds / max(a.cpu_seconds, 1e-9) for a, b in zip(ours, peer, strict=True)]
    count = len(ratios)
    # How many ratios may be dropped at each end.
    drop = max((each for each in range(count) if sign_test(each, count) <= 0.025), default=0)
    return Ratio(
        statistics.median(ratios),
        ratios[drop],
        ratios[-1 - drop],
        statistics.median(cpu),
        sum(each < 1 for each in ratios),
        count,
    )


def sign_test(count: int, rounds: int) -> float:
    """Return the probability that a fair coin shows heads at most `count` times in `rounds`."""
    return sum(math.comb(rounds, each) for each in range(count + 1)) / 2**rounds
