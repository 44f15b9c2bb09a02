"""Runs of equal settings but for the seed, as one group, and the settings that differ."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from library.comparing.find_runs import EXPERIMENT_PARTS, run_names
from library.comparing.metrics import is_debug, is_less_better, metrics_of
from library.comparing.significance import Difference, Values, compare_values, correct
from library.evaluation.repeated_runs import summarize_values
from library.messages import counted
from library.reporting.runs import Run

# Whether a setting, by name, matters beside others, setting → value.
IsInEffect = Callable[[str, Mapping[str, str]], bool]
# Settings that only say where a run lies.
_PATHS = ("run_dir", "model_dir", "best_model_dir", "cache_dir", "export_dir", "predict_dir")
# Those in which the runs of a group may differ; the first two tell its runs apart.
_SEED, _FOLD = "random_seed", "fold"
_OF_ONE_RUN = (_SEED, _FOLD, "seeds", "resume", "verbose", "report")
_UNUSED = "-"


@dataclass(frozen=True)
class Group:
    """Runs of equal settings but for the seed and the fold; perhaps a single one."""

    name: str
    runs: Sequence[Run]

    @property
    def folds(self) -> int:
        """Number of the folds that the runs are trained on; 0: all have the same images."""
        folds = {run.settings.get(_FOLD, "null") for run in self.runs}
        return len(folds) if len(folds) > 1 else 0

    @property
    def size(self) -> str:
        """The number of runs in words: `3 seeds`, `5 folds`, `3 seeds, 5 folds`."""
        seeds = counted(len({_seed_of(run) for run in self.runs}), "seed")
        if not self.folds:
            return seeds
        folds = counted(self.folds, "fold")
        return folds if seeds == "1 seed" else f"{seeds}, {folds}"

    def values(self, metric: str) -> Values:
        """Return a metric by seed and fold; of runs that have both in common, the mean."""
        found = defaultdict(list)
        for run in self.runs:
            if (value := metrics_of(run).get(metric)) is not None:
                fold = run.settings.get(_FOLD, "null")
                found[_seed_of(run), fold, run.training_data].append(value)
        return {name: statistics.fmean(values) for name, values in found.items()}

    def summarize(self, metric: str) -> dict[str, Any]:
        """Return mean, standard deviation and interval of a metric over the runs."""
        values = list(self.values(metric).values())
        return summarize_values(values, is_share=not metric.endswith("loss"), folds=self.folds)


def _seed_of(run: Run) -> str:
    return run.settings.get(_SEED, str(run.folder))


def group_runs(runs: Sequence[Run], is_in_effect: IsInEffect) -> list[Group]:
    """Return the groups of runs, in the order of the runs. Runs with --debug are left out.

    Args:
        runs: The runs.
        is_in_effect: Whether a setting matters in a run.
    """
    rows = {key: values for key, *values in setting_rows(runs, is_in_effect)}
    columns = [values for key, values in rows.items() if key not in _OF_ONE_RUN]
    found: dict[Any, list[Run]] = {}
    for number, run in enumerate(runs):
        if not is_debug(run):
            has_fold = run.settings.get(_FOLD, "null") != "null"
            key = (*(each[number] for each in columns), has_fold or run.training_data)
            found.setdefault(key, []).append(run)
    return [Group(_group_name(members, runs), members) for members in found.values()]


def best_groups_first(groups: Sequence[Group], metric: str) -> list[Group]:
    """Return groups by the mean of a metric, the best first; those without it come last."""

    def rank(group: Group) -> tuple[bool, float]:
        mean = group.summarize(metric)["mean"]
        return mean is None, (mean or 0.0) * (1 if is_less_better(metric, group.runs) else -1)

    return sorted(groups, key=rank)


def setting_rows(
    runs: Sequence[Run], is_in_effect: IsInEffect = lambda name, values: True
) -> list[tuple[str, ...]]:
    """Return (key, value in each run …) of the settings in which the runs differ.

    A dash marks a setting that the version behind a run did not have, or that has no effect on it;
    it counts as no difference.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in _PATHS)
    rows = []
    for key in keys:
        values = [
            run.settings.get(key, _UNUSED) if is_in_effect(key, run.settings) else _UNUSED
            for run in runs
        ]
        if len({*values} - {_UNUSED}) > 1:
            rows.append((key, *values))
    return rows


def _group_name(members: Sequence[Run], runs: Sequence[Run]) -> str:
    """Return the folder that holds a group's runs and no other, else the first run's name."""
    names = dict(zip(map(id, runs), run_names(runs), strict=True))
    first = names[id(members[0])]
    if len(members) == 1:
        return first
    folder = Path(commonpath([run.folder.absolute() for run in members]))
    inside = [run for run in runs if folder in run.folder.absolute().parents]
    below = members[0].folder.absolute().relative_to(folder).parts
    if len(inside) == len(members):
        # Names lack what all runs have in common: the folder itself, if there is but one group.
        shared = Path(first).parents[len(below) - 1]
        if shared.name or EXPERIMENT_PARTS.fullmatch(below[0]):
            return shared.as_posix() if shared.name else folder.name
    return f"{first} and {len(members) - 1} more"


def find_reference(groups: Sequence[Group], metric: str) -> Group | None:
    """Return the best group of several runs, with which others are compared; None without groups.

    A single run may be the best by chance, and nothing can be said about a difference from it.

    Args:
        groups: The groups, the best first.
        metric: Its name.
    """
    several = (each for each in groups if len(each.values(metric)) > 1)
    return next(several, next(iter(groups), None))


def compare_groups(groups: Sequence[Group], metric: str) -> list[Difference | None]:
    """Return how each group differs from the reference; None: it is that, or has no such metric.

    Args:
        groups: The groups, the best first.
        metric: Its name.
    """
    best = find_reference(groups, metric)
    values = [each.values(metric) for each in groups]
    known = [n for n, each in enumerate(groups) if each is not best and values[n]]
    if best is None or not (best_values := best.values(metric)):
        return [None] * len(groups)
    differences = correct(
        [compare_values(values[n], best_values, max(groups[n].folds, best.folds)) for n in known]
    )
    by_number = dict(zip(known, differences, strict=True))
    return [by_number.get(number) for number in range(len(groups))]
