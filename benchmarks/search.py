"""Measure the search: what it finds, what it costs, and that kills change nothing.

    python -m benchmarks.search compare [--trials 30] [--epochs 6] [--minutes 5]
    python -m benchmarks.search overhead [--trials 10] [--epochs 6]
    python -m benchmarks.search kills [--kills 100] [--trials 20] [--minutes 5]

compare searches the sample's hyperparameters (`sample_search`) with TPE and median pruning, and
then with three random searches, without pruning, that get the same time. It prints the best
validation loss of each, and the time spent in pruned trials as a share of what whole trials would
have taken. overhead prints the time beside the trainings. kills ends a search of tiny images at
random moments with SIGKILL, resumes it until it is finished, and compares all trials with those of
a search that nobody killed; it ends with exit code 1 after a difference.

With --minutes, compare and kills stop after that time; the same command continues, in --folder. The
last line is a JSON object of all figures so far. Under load, times mean little.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RANDOM_SEARCHES = 3
TINY_SPACE = """\
tiny:
  model: simple
  width: {choices: [4, 8]}
  learning_rate: {log: [1e-3, 1e-1]}
  dropout_rate: [0.0, 0.5]
  optimizer: {choices: [adam, momentum]}
"""


def read_trials(folder: Path) -> list[Any]:
    """Return the trials of the search in a folder, as Optuna's FrozenTrial."""
    from library.search.storage import open_study

    if not (folder / "study.journal").exists():
        return []
    return open_study(None, folder, ["minimize"]).trials()


def in_state(trials: Sequence[Any], state: str) -> list[Any]:
    """Return the trials that ended so: COMPLETE, PRUNED or FAIL."""
    return [each for each in trials if each.state.name == state]


class Progress:
    """Figures so far, in a file, and when to stop."""

    def __init__(self, folder: Path, minutes: float | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._path = folder, folder / "figures.json"
        self.figures: dict[str, Any] = {}
        if self._path.exists():
            self.figures = json.loads(self._path.read_text())
        self._deadline = time.monotonic() + 60 * minutes if minutes else None

    def left(self) -> float:
        """Return the seconds until the time to stop."""
        return self._deadline - time.monotonic() if self._deadline else float("inf")

    def save(self) -> None:
        """Write the figures."""
        self._path.write_text(json.dumps(self.figures))


def search_for(arguments: Sequence[str], seconds: float) -> tuple[float, bool]:
    """Run a search for at most some seconds. Return the seconds it took, and whether it ended."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "run.py", "search", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        code = process.wait(None if seconds == float("inf") else max(seconds, 0))
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        return time.monotonic() - begin, False
    if code:
        raise RuntimeError(f"exit code {code}")
    return time.monotonic() - begin, True


def sample_arguments(options: argparse.Namespace, folder: Path, *more: str) -> list[str]:
    """Return the options of a search on the sample."""
    return [
        *("--config_set=sample", "--search_space=sample_search", f"--run_dir={folder}"),
        *(f"--data_dir={options.data_dir}", f"--train_epochs={options.epochs}", *more),
    ]


def compare(options: argparse.Namespace, progress: Progress) -> None:
    """Compare TPE and pruning with random searches of the same time."""
    figures, folder = progress.figures, progress.folder
    figures.setdefault("seconds", {})
    searches = {"tpe": [f"--trials={options.trials}"]}
    for seed in range(RANDOM_SEARCHES):
        more = ["--sampler=random", "--pruner=none", "--trials=1000", f"--random_seed={seed}"]
        searches[f"random_{seed}"] = more
    for name, more in searches.items():
        spent = figures["seconds"].get(name, 0.0)
        budget = float("inf") if name == "tpe" else figures["seconds"]["tpe"]
        if name in figures.get("best", {}):
            continue
        left = progress.left()
        arguments = sample_arguments(options, folder / name, *more)
        took, ended = search_for(arguments, min(left, budget - spent))
        figures["seconds"][name] = spent + took
        progress.save()
        trials = read_trials(folder / name)
        if not ended and spent + took < budget:
            return
        best = min(each.value for each in in_state(trials, "COMPLETE"))
        figures.setdefault("best", {})[name] = best
        figures.setdefault("trials", {})[name] = len(trials)
        if name == "tpe":
            pruned, complete = (in_state(trials, each) for each in ("PRUNED", "COMPLETE"))
            seconds = [
                [each.user_attrs["result"]["seconds"] for each in group]
                for group in (pruned, complete)
            ]
            figures["pruned"] = len(pruned)
            whole = len(pruned) * statistics.mean(seconds[1])
            figures["pruned_share"] = sum(seconds[0]) / whole if pruned else None
        progress.save()
    middle = statistics.median(figures["best"][f"random_{n}"] for n in range(RANDOM_SEARCHES))
    figures["is_better"] = figures["best"]["tpe"] < middle
    progress.save()


def timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """Return a function that does the same, and adds up the time it takes."""

    def call(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin

    return call


def overhead(options: argparse.Namespace, progress: Progress) -> None:
    """Measure the time of a search beside that of making and fitting trainers."""
    from library.errors import TerminatedError  # noqa: F401  (before TensorFlow)
    from library.tensorflow_import import import_tensorflow

    import_tensorflow()
    import run
    from library.search.trials import TrialQueue
    from library.training.trainer import Trainer
    from project import assembly
    from project.commands import search

    seconds: dict[str, float] = {}
    for owner, name in (
        *((search, "_run_trials"), (search, "report"), (TrialQueue, "report")),
        *((assembly, "make_trainer"), (Trainer, "fit")),
    ):
        key = f"{getattr(owner, '__name__', '')}.{name}"
        setattr(owner, name, timed(getattr(owner, name), key, seconds))
    os.chdir(ROOT)
    more = [f"--trials={options.trials}"]
    run.main(["search", *sample_arguments(options, progress.folder / "overhead", *more)])
    total = seconds["project.commands.search._run_trials"]
    reports = seconds["TrialQueue.report"]
    training = seconds["project.assembly.make_trainer"] + seconds["Trainer.fit"] - reports
    progress.figures |= {
        "training_seconds": training,
        "overhead_seconds_per_trial": (total - training) / options.trials,
        "overhead_share": (total - training) / training,
        "results_seconds": seconds["project.commands.search.report"],
    }
    progress.save()


def outcome(folder: Path) -> list[Any]:
    """Return what must be equal of each trial: number, state, values, parameters, reports."""
    return [
        [
            t.number,
            t.state.name,
            t.values,
            t.params,
            {str(k): v for k, v in t.intermediate_values.items()},
        ]
        for t in read_trials(folder)
    ]


def kills(options: argparse.Namespace, progress: Progress) -> None:
    """Kill searches at random moments, and compare them with one that nobody killed."""
    from tests.conftest import convert, write_colors
    from tests.helpers.workers import Worker

    folder, figures = progress.folder, progress.figures
    data, space = folder / "data", folder / "space.yaml"
    if not space.exists():
        for seed, (split, count) in enumerate((("train", 20), ("validation", 6))):
            write_colors(folder / "images" / split, count, seed=seed)
            convert(folder / "images" / split, data, split)
        space.write_text(TINY_SPACE)

    def start(run_dir: Path) -> Worker:
        return Worker(
            [
                *("search", f"--data_dir={data}", f"--hyperparameter_file={space}"),
                *("--search_space=tiny", f"--run_dir={run_dir}", f"--trials={options.trials}"),
                *("--image_size=8", "--batch_size=16", "--train_epochs=3"),
                "--save_checkpoints_secs=0.2",
            ]
        )

    def finish(worker: Worker) -> None:
        code, said = worker.finish(3600)
        if code:
            raise RuntimeError(f"exit code {code}: {said}")

    if "whole_seconds" not in figures:
        begin = time.monotonic()
        finish(start(folder / "whole"))
        figures |= {"whole_seconds": time.monotonic() - begin, "kills": 0, "searches": 0}
        progress.save()
    wanted = outcome(folder / "whole")
    while figures["kills"] < options.kills and progress.left() > 0:
        chance = random.Random(figures["kills"])
        run_dir = folder / f"killed_{figures['searches']}"
        count = chance.choice((2, 5, 10, 20))
        for _ in range(count):
            worker = start(run_dir)
            deadline = time.monotonic() + chance.uniform(
                0, 4 * figures["whole_seconds"] / options.trials
            )
            while time.monotonic() < deadline and worker.poll() is None:
                time.sleep(0.005)
            figures["kills"] += worker.poll() is None
            progress.save()
            worker.send_signal(signal.SIGKILL)
            worker.finish(600)
        finish(start(run_dir))
        if outcome(run_dir) != wanted:
            raise SystemExit(f"{run_dir} differs from {folder / 'whole'}")
        figures["searches"] += 1
        progress.save()
    figures["states"] = {each: sum(t[1] == each for t in wanted) for each in ("COMPLETE", "PRUNED")}


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("compare", "overhead", "kills"))
    parser.add_argument("--folder", type=Path, default=Path("out/benchmark_search"))
    parser.add_argument("--data_dir", default="dataset/sample", help="the converted sample")
    parser.add_argument("--trials", type=int, help="number of trials; default: 30, 10 or 20")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of a trial on the sample")
    parser.add_argument("--kills", type=int, default=100, help="number of kills")
    parser.add_argument("--minutes", type=float, help="time to stop after; default: none")
    options = parser.parse_args()
    options.trials = options.trials or {"compare": 30, "overhead": 10, "kills": 20}[options.part]
    progress = Progress(options.folder.resolve() / options.part, options.minutes)
    {"compare": compare, "overhead": overhead, "kills": kills}[options.part](options, progress)
    print(json.dumps({"part": options.part, **progress.figures}))


if __name__ == "__main__":
    main()
