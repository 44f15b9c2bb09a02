"""Measure test accuracy and training time against named peers, with several seeds.

    python -m benchmarks.accuracy sample --peers .venv-peers/bin/python [--seeds 3]
    python -m benchmarks.accuracy --list

A task trains each contender once per seed, one after the other, each in a process of its own: ours
through `run.py`, as a user would, with all defaults of the named set. A peer runs in the
interpreter that `--peers` names, whose environment has the peer's packages (`make bench-peers`; see
benchmarks/accuracy_peers.py), and gets the time or the processor time that ours took for the same
seed. Without `--peers`, these are left out.

Printed are the mean over the seeds, its 95 % interval (Student's t), and the wall and processor
seconds of the training, start and report included. Differences are paired by seed. The last line
is a JSON object of all figures. Under load, wall time means little, and processor time grows too:
compare only what one call measured.
"""

import argparse
import json
import os
import statistics
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.programs import ROOT, Called, call, call_project, convert

SAMPLE = ROOT / "dataset" / "sample.zip"
SPLITS = ("train", "validation", "test")
# The 97.5 % quantile of Student's t by degrees of freedom; beyond, that of the normal distribution.
T_QUANTILES = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)

# About as much processor time as 40 epochs of the set `sample`.
RESNET9 = (
    *("--hyperparameter_set", "resnet9", "--train_epochs", "20"),
    *("--best_metric", "accuracy"),
)


@dataclass(frozen=True)
class Figures:
    """What one training of one contender gave."""

    metric: float
    wall: float  # seconds of the training
    cpu: float


@dataclass(frozen=True)
class Trial:
    """One training to make.

    Attributes:
        seed: Its random seed.
        folder: Where the training may write.
        data: Converted splits, as `--data_dir`; `images` in it has the same as class folders.
        metric: Name of the metric of `run.py evaluate` that counts.
        peers: The peers' Python interpreter.
        ours: What the task's first contender gave for the same seed; None for that itself.
    """

    seed: int
    folder: Path
    data: Path
    metric: str
    peers: Path | None = None
    ours: Figures | None = None


Contender = Callable[[Trial], Figures]


def figures_of(training: Called, metrics: Mapping[str, float], trial: Trial) -> Figures:
    """Return the metric that counts, and what the training took."""
    return Figures(metrics[trial.metric], training.seconds, training.cpu_seconds)


@dataclass(frozen=True)
class Task:
    """One comparison.

    Attributes:
        about: What is learned, in one line.
        prepare: Writes data into a folder, unless they are there.
        contenders: Name → how to train it. The first is ours, which the others are compared with.
        metric: A metric of `run.py evaluate`.
        goal: The mean that ours should reach.
        cited: Figures of others that can't be repeated here: name → metric.
    """

    about: str
    prepare: Callable[[Path], None]
    contenders: Mapping[str, Contender]
    metric: str = "accuracy"
    goal: float | None = None
    cited: Mapping[str, float] | None = None


def ours(*arguments: str) -> Contender:
    """Return the contender that `run.py` with these arguments is."""

    def train(trial: Trial) -> Figures:
        common = [*arguments, "--data_dir", str(trial.data), "--run_dir", str(trial.folder)]
        seeded = [*common, "--random_seed", str(trial.seed), "--resume", "never"]
        training = call_project("run.py", *seeded)
        evaluation = call_project("run.py", "evaluate", *common, "--bootstrap_samples", "0")
        return figures_of(training, json.loads(evaluation.output), trial)

    return train


def peer(name: str, *arguments: str) -> Contender:
    """Return the contender of that name in benchmarks/accuracy_peers.py."""

    def train(trial: Trial) -> Figures:
        assert trial.ours
        budget = ["--wall", str(trial.ours.wall), "--cpu", str(trial.ours.cpu)]
        script = [trial.peers, ROOT / "benchmarks" / "accuracy_peers.py", name, *arguments]
        images = ["--images", trial.data / "images", "--folder", trial.folder]
        called = call([*script, *images, "--seed", trial.seed, *budget])
        return figures_of(called, json.loads(called.output.splitlines()[-1]), trial)

    train.needs_peers = True  # type: ignore[attr-defined]
    return train


def keras_peer(name: str, *arguments: str) -> Contender:
    """Return the contender of that name in benchmarks/transfer_peers.py."""

    def train(trial: Trial) -> Figures:
        script = [sys.executable, ROOT / "benchmarks" / "transfer_peers.py", name, *arguments]
        images = ["--images", trial.data / "images", "--seed", str(trial.seed)]
        called = call([*script, *images])
        return figures_of(called, json.loads(called.output.splitlines()[-1]), trial)

    return train


def convert_splits(source: Path, data: Path, *options: str) -> None:
    """Convert the splits of a folder or a zip, unless they are converted."""
    for split in SPLITS:
        if not (data / split / f"{split}.manifest.json").exists():
            convert(split, f"{source}/{split}", data / split, *options)


def unzip(source: Path, data: Path) -> None:
    """Unpack a zip of splits into `images`, unless that is there."""
    if not (data / "images").exists():
        with zipfile.ZipFile(source) as archive:
            archive.extractall(data / "images")


def prepare_sample(data: Path) -> None:
    """Convert the bundled sample."""
    unzip(SAMPLE, data)
    convert_splits(SAMPLE, data)


def prepare_fashion_mnist(data: Path) -> None:
    """Convert all of Fashion-MNIST, from Debian's package."""
    source = data / "fashion_mnist.zip"
    if not source.exists():
        data.mkdir(parents=True, exist_ok=True)
        call([sys.executable, "-m", "dataset.make_sample", "--all", source])
    convert_splits(source, data, "--color_space", "gray", "--quality", "100")


def prepare_imbalanced(data: Path, ratio: int = 50) -> None:
    """Convert the sample with a long tail: the last class has a 50th of the first one's images.

    The counts fall exponentially, as in Cui et al. 2019 (arXiv 1901.05555); validation and test
    stay balanced.
    """
    unzip(SAMPLE, data)
    names = (ROOT / "dataset" / "make_sample.py").read_text(encoding="utf-8")
    folders = sorted((data / "images" / "train").iterdir(), key=lambda each: names.find(each.name))
    for number, folder in enumerate(folders):
        images = sorted(folder.iterdir())
        kept = round(len(images) * ratio ** (-number / (len(folders) - 1)))
        # Only what a run that was stopped has left.
        if not (data / "train").exists():
            for image in images[kept:]:
                image.unlink()
    convert_splits(data / "images", data)


def prepare_few(data: Path, count: int) -> None:
    """Convert the sample with `count` training images of each class."""
    unzip(SAMPLE, data)
    for folder in (data / "images" / "train").iterdir():
        for image in sorted(folder.iterdir())[count:]:
            image.unlink()
    convert_splits(data / "images", data)


def prepare_photos(data: Path) -> None:
    """Convert the class folders that PHOTOS names, a tenth each for validation and test."""
    source = os.environ.get("PHOTOS")
    if not source:
        sys.exit("set PHOTOS to a folder with a folder of photographs for each class")
    for folder in sorted(each for each in Path(source).iterdir() if each.is_dir()):
        for number, image in enumerate(sorted(folder.iterdir())):
            split = {0: "validation", 5: "test"}.get(number % 10, "train")
            copy = data / "images" / split / folder.name / image.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                copy.symlink_to(image.resolve())
    convert_splits(data / "images", data, "--max_edge", "384", "--follow_links")


def few(count: int, goal: float) -> Task:
    """Return the comparison of transfer learning from so many images of each class."""
    return Task(
        f"the sample with {count} images a class, on EfficientNet-Lite0",
        partial(prepare_few, count=count),
        {
            "set transfer": ours("--config_set", "transfer"),
            "defaults": ours(),
            "linear head on its features, Keras": keras_peer("linear", "--epochs", "30"),
        },
        goal=goal,
    )


TASKS = {
    "few_20": few(20, 0.83),
    "few_100": few(100, 0.87),
    "photos": Task(
        "photographs of mixed shapes in class folders (PHOTOS), all defaults",
        prepare_photos,
        {
            "defaults": ours(),
            "set transfer": ours("--config_set", "transfer"),
            "Keras's transfer-learning guide, same backbone": keras_peer("tutorial"),
        },
    ),
    "sample": Task(
        "the sample (400 images a class, 28 pixels), from scratch",
        prepare_sample,
        {
            "sample": ours("--config_set", "sample"),
            "sample, set resnet9": ours("--config_set", "sample", *RESNET9),
            "Ultralytics yolo11n-cls.yaml in the same time": peer("yolo"),
            "PyTorch ResNet-9 with the DAWNBench recipe, same processor time": peer("resnet9"),
        },
        goal=0.91,
    ),
    "fashion_mnist": Task(
        "all of Fashion-MNIST, from scratch",
        prepare_fashion_mnist,
        {"fashion_mnist": ours("--config_set", "fashion_mnist")},
        goal=0.945,
        cited={"Google AutoML, 24 hours (Zalando's list)": 0.939},
    ),
    "imbalanced": Task(
        "the sample with a long tail (400 to 8 images a class), balanced test split",
        prepare_imbalanced,
        {
            "sample, logit_adjustment": ours("--config_set", "sample", "--logit_adjustment", "1"),
            "sample, class_weight auto": ours("--config_set", "sample", "--class_weight", "auto"),
            "sample, cross-entropy": ours("--config_set", "sample"),
            "sample, oversampling": ours("--config_set", "sample", "--balance", "oversample"),
        },
        metric="macro_f1",
    ),
}


def interval(values: Sequence[float]) -> float:
    """Return half the width of the mean's 95 % interval, by Student's t; NaN for one value."""
    if len(values) < 2:
        return float("nan")
    quantile = (*T_QUANTILES, 1.96)[min(len(values) - 2, len(T_QUANTILES))]
    return quantile * statistics.stdev(values) / len(values) ** 0.5


def run_task(task: Task, trial: Trial, seeds: int) -> dict[str, list[Figures]]:
    """Train every contender with every seed, and print each result as it comes."""
    task.prepare(trial.data)
    results: dict[str, list[Figures]] = {}
    for seed in range(seeds):
        first: Figures | None = None
        for name, train in task.contenders.items():
            if getattr(train, "needs_peers", False) and not trial.peers:
                continue
            folder = trial.folder / f"{len(results) if seed == 0 else list(results).index(name)}"
            figures = train(replace(trial, seed=seed, folder=folder / str(seed), ours=first))
            first = first or figures
            results.setdefault(name, []).append(figures)
            words = f"{task.metric} {figures.metric:.4f}, {figures.wall:.0f} s"
            print(f"seed {seed}, {name}: {words}, {figures.cpu:.0f} s of processor", flush=True)
    return results


def summarize(task: Task, results: Mapping[str, Sequence[Figures]]) -> dict[str, object]:
    """Print the means with their intervals, and return them."""
    summary: dict[str, object] = {"about": task.about, "metric": task.metric, "goal": task.goal}
    ours_first = [each.metric for each in next(iter(results.values()))]
    print(f"\n{task.about}: {task.metric}, mean of {len(ours_first)} seeds, 95 % interval")
    for name, figures in results.items():
        metrics = [each.metric for each in figures]
        wall, cpu = (
            statistics.mean(getattr(each, key) for each in figures) for key in ("wall", "cpu")
        )
        gains = [mine - theirs for mine, theirs in zip(ours_first, metrics, strict=True)]
        gain, doubt = statistics.mean(gains), interval(gains)
        versus = f"; ours {gain:+.4f} ± {doubt:.4f}" if any(gains) else ""
        mean = f"{statistics.mean(metrics):.4f} ± {interval(metrics):.4f}"
        print(f"  {name}: {mean}, {wall:.0f} s, {cpu:.0f} s of processor{versus}")
        summary[name] = {"runs": list(map(asdict, figures)), "gain": gain, "gain_interval": doubt}
    for name, metric in (task.cited or {}).items():
        print(f"  {name}: {metric:.4f} (cited)")
    if task.goal:
        print(f"  goal: {task.goal}")
    return summary


def main() -> None:
    """Run the tasks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--list", action="store_true", help="list the tasks")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="Python interpreter of the peers' environment")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "accuracy")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"unknown task {', '.join(sorted(unknown))}; known: {', '.join(TASKS)}")
    if options.list or not options.tasks:
        for name, task in TASKS.items():
            print(f"{name}: {task.about}; {', '.join(task.contenders)}")
        return
    folder = options.folder.resolve()
    summaries = {}
    for name in options.tasks:
        task = TASKS[name]
        trial = Trial(0, folder / "runs" / name, folder / "data" / name, task.metric, options.peers)
        summaries[name] = summarize(task, run_task(task, trial, options.seeds))
    print(json.dumps(summaries))


if __name__ == "__main__":
    main()
