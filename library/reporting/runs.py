"""A run as its folder tells of it: what it reached, when, how fast, and with which settings.

Reads text files only, so that comparing many runs needs no TensorFlow.
"""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

from library.errors import UserError
from library.files import find_damage, read_sealed

SETTINGS_FILES = ("project.yaml", "hyperparameters.yaml")
# A line of these files: `  key: value   # where it comes from`.
_SETTING = re.compile(r"  (\w+): (.*\S)\s+# (.+)")


@dataclass(frozen=True)
class Run:
    """A finished or stopped run that has a snapshot. None stands for what is not known."""

    folder: Path
    # The snapshot's metrics.json: epoch, step, monitored, value, validation.
    best: dict
    # Rows of history.csv.
    rows: list
    # Key → the text of its value.
    settings: dict
    seconds: float | None
    parameters: int | None
    # What evaluation found of the best snapshot on the whole test split of its own data:
    # (accuracy, (low, high) or None).
    test: tuple | None

    @property
    def images_per_second(self):
        """The mean over the evaluations' rows."""
        rates = [row.get("images_per_second", float("nan")) for row in self.rows]
        rates = [rate for rate in rates if rate == rate]  # Not those that are NaN.
        return sum(rates) / len(rates) if rates else None


def read_run(folder):
    """Return Run in a folder. Raises UserError, one line, where there is none or half of one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    return read_sealed(folder / "best", lambda best: _read_run(folder, best))


def _read_run(folder, best):
    if not best.is_dir():
        raise UserError(f"{folder} has no best snapshot: no run, or none that was ever evaluated")
    if damage := find_damage(best):
        raise UserError(f"the snapshot in {folder} is damaged ({damage})")
    try:
        metrics = json.loads((best / "metrics.json").read_text())
        evaluated = [
            _read_json(folder / "evaluation" / f"{each}.json") for each in ("test", "validation")
        ]
        # Of an earlier best, they say nothing about this one.
        test, validation = (
            each if each and each.get("epoch") == metrics["epoch"] else None for each in evaluated
        )
        return Run(
            folder=folder,
            best=metrics,
            rows=read_history(folder / "history.csv"),
            settings={
                key: value
                for name in SETTINGS_FILES
                for key, value, _ in read_settings_file(best / name)
            },
            seconds=_seconds(folder / "checkpoints"),
            parameters=next(
                (
                    int(each["parameters"])
                    for each in (test, validation)
                    if each and "parameters" in each
                ),
                None,
            ),
            test=_accuracy(test) if test and _is_whole(test) else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} cannot be read: {error!r}") from None


def read_runs(folders):
    """Give (Runs, lines about those that are none)."""
    runs, skipped = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            skipped.append(f"skipped: {error}")
    return runs, skipped


def read_history(path):
    """Return rows of a history.csv, their numbers as floats; none where there is no such file."""
    if path is None or not Path(path).is_file():
        return []
    with Path(path).open(newline="") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def read_settings_file(path):
    """Give (key, value, where it comes from) of each line of a settings file as resolved."""
    if not Path(path).is_file():
        return []
    found = map(_SETTING.fullmatch, Path(path).read_text().splitlines())
    return [match.groups() for match in found if match]


def _number(words):
    try:
        return float(words)
    except (TypeError, ValueError):
        return float("nan")  # Not measured then.


def _read_json(path):
    return json.loads(path.read_text()) if path.is_file() else None


def _is_whole(result):
    """Return whether what was measured is all of the split, of the run's own data, seen as it is.

    Older versions did not tell: theirs is believed.
    """
    is_part = result["images"] < result["images_in_split"] if "images_in_split" in result else False
    is_plain = result.get("views", 1) == len(result.get("members", [None])) == 1
    return is_plain and not is_part and result.get("data", {}).get("is_own", True)


def _accuracy(result):
    between = result.get("intervals", {}).get("accuracy")
    if between is not None:
        low, high = map(float, between)
        between = low, high
    return float(result["accuracy"]), between


def _seconds(checkpoints):
    """Return how long the run took up to its newest checkpoint."""
    newest = max(checkpoints.glob("step_[0-9]*/state.json"), default=None)
    return json.loads(newest.read_text()).get("seconds") if newest else None
