"""What a run reached, how fast, and with which settings, as its folder tells.

Reads text files only, so that comparing many runs needs no TensorFlow.
"""

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from library.errors import UserError
from library.evaluation.table import metric_names
from library.files import SEAL, find_damage, parse_json, read_sealed, sha256_of

# The page about a run, in its folder.
REPORT = "report.html"
SETTINGS_FILES = ("project.yaml", "hyperparameters.yaml")
# A line of these files: `  key: value   # source`.
_SETTING = re.compile(r"  (\w+): (.*\S)\s+# (.+)")
# What stands for null: `default (= batch_size)`, `default (= run_dir/best)`.
_FOLLOWS = re.compile(r"default \(= (\w+)(.*)\)")


@dataclass(frozen=True)
class Run:
    """A finished or stopped run with a snapshot. None: unknown.

    Attributes:
        folder: Where the run lies.
        best: The snapshot's metrics.json: epoch, step, monitored, value, validation.
        history: Rows of history.csv.
        settings: Key → value in force, as text.
        seconds: Training time up to the newest checkpoint.
        parameters: Number of the network's parameters.
        test: Accuracy and its interval, if `evaluate` was run on the whole test split of the run's
            data.
        test_metrics: All metrics of that evaluation, name → value.
        training_data: Hash of the training split.
    """

    folder: Path
    best: dict
    history: list[dict[str, float]]
    settings: dict[str, str]
    seconds: float | None
    parameters: int | None
    test: tuple[float, tuple[float, float] | None] | None
    training_data: str | None = None
    test_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float | None:
        """The mean over the rows of the history."""
        rates = [row.get("images_per_second", math.nan) for row in self.history]
        rates = [rate for rate in rates if not math.isnan(rate)]
        return sum(rates) / len(rates) if rates else None


def read_run(folder: str | Path) -> Run:
    """Return the run in a folder. Raises UserError, one line, if there is none or a damaged one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    return read_sealed(folder / "best", lambda best: _read_run(folder, best))


def read_runs(folders: Iterable[str | Path]) -> tuple[list[Run], list[str]]:
    """Return the runs, and a line for each folder that is not one."""
    runs, skipped = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            skipped.append(f"skipped: {error}")
    return runs, skipped


def read_history(path: Path | None) -> list[dict[str, float]]:
    """Return the rows of a history.csv, NaN for empty cells; [] if there is no such file."""
    if path is None or not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def read_settings_file(path: Path) -> list[tuple[str, str, str]]:
    """Return (key, value, source) of each line of a resolved settings file; [] without one."""
    if not path.is_file():
        return []
    matches = map(_SETTING.fullmatch, path.read_text(encoding="utf-8").splitlines())
    return [(match[1], match[2], match[3]) for match in matches if match]


def _read_run(folder: Path, best: Path) -> Run:
    """Return the run whose snapshot lies in `best` at the moment."""
    if not best.is_dir():
        raise UserError(f"{folder} has no best snapshot: not a run, or one not evaluated yet")
    if damage := find_damage(best):
        raise UserError(f"the snapshot in {folder} is damaged ({damage})")
    try:
        metrics = parse_json((best / "metrics.json").read_bytes())
        summaries = {
            split: _read_summary(folder / "evaluation" / f"{split}.json", best, metrics["epoch"])
            for split in ("test", "validation")
        }
        counts = [each["parameters"] for each in summaries.values() if "parameters" in each]
        settings = [each for name in SETTINGS_FILES for each in read_settings_file(best / name)]
        return Run(
            folder=folder,
            best=metrics,
            history=read_history(folder / "history.csv"),
            settings=_in_force(settings),
            seconds=_training_seconds(folder / "checkpoints"),
            parameters=int(counts[0]) if counts else None,
            test=(test := _test_accuracy(summaries["test"])),
            training_data=_read_training_data(best / "data.json"),
            test_metrics=_test_metrics(summaries["test"]) if test else {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} cannot be read: {error!r}") from None


def _in_force(rows: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return key → value, with the value of the setting that a null follows."""
    settings: dict[str, str] = {}
    for key, value, source in rows:
        follows = _FOLLOWS.fullmatch(source)
        if value == "null" and follows and follows[1] in settings:
            value = settings[follows[1]] + follows[2]
        settings[key] = value
    return settings


def _read_summary(path: Path, best: Path, epoch: int) -> dict:
    """Return an evaluation of the snapshot in `best`; {} if it is missing or about another."""
    summary = parse_json(path.read_bytes()) if path.is_file() else {}
    # Version 0.1 did not write the hash.
    is_same = summary.get("snapshot_sha256") in (None, sha256_of(best / SEAL))
    return summary if is_same and summary.get("epoch") == epoch else {}


def _read_training_data(path: Path) -> str | None:
    """Return the hash of the training split; None if the snapshot's version did not write it."""
    return parse_json(path.read_bytes()).get("fingerprint") if path.is_file() else None


def _test_accuracy(summary: dict) -> tuple[float, tuple[float, float] | None] | None:
    """Return accuracy and interval, if they are those of the run itself on its whole test split.

    Version 0.1 did not say what it had evaluated; its results count.
    """
    if not summary or summary.get("images", 0) < summary.get("images_in_split", 0):
        return None
    is_plain = summary.get("views", 1) == len(summary.get("members", [None])) == 1
    if not is_plain or not summary.get("data", {}).get("is_own", True):
        return None
    interval = summary.get("intervals", {}).get("accuracy")
    if interval is not None:
        low, high = map(float, interval)
        interval = low, high
    return float(summary["accuracy"]), interval


def _test_metrics(summary: dict) -> dict[str, float]:
    names = metric_names({"intervals": {}, **summary})
    return {name: summary[name] for name in names if summary[name] is not None}


def _training_seconds(checkpoints: Path) -> float | None:
    newest = max(checkpoints.glob("step_[0-9]*/state.json"), default=None)
    return parse_json(newest.read_bytes()).get("seconds") if newest else None


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
