"""What a comparison of runs shows: results, groups, settings that differ, notes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from library.comparing.find_runs import data_warnings, run_names
from library.comparing.groups import (
    Group,
    IsInEffect,
    best_groups_first,
    compare_groups,
    find_reference,
    group_runs,
    setting_rows,
)
from library.comparing.metrics import (
    format_value,
    is_debug,
    is_less_better,
    metrics_of,
    monitored_metric,
    ranking_metric,
)
from library.comparing.significance import Difference
from library.evaluation.intervals import CONFIDENCE
from library.evaluation.table import format_interval, format_number
from library.messages import listed
from library.reporting.runs import Run

HEAD = ("run", "best", "epoch", "accuracy", "test accuracy", "time", "images/s", "parameters")
# The columns of which the best cell is marked.
_MARKED = ("accuracy", "test accuracy", "time", "images/s")
_FEW_RUNS = 3
_ANSWERS = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: The runs, the best first.
        metric: What they are sorted by, as metrics_of names it.
        is_in_effect: Whether a setting matters in a run.
        skipped: A line for each folder that is not a run.
    """

    runs: Sequence[Run]
    metric: str
    is_in_effect: IsInEffect
    skipped: Sequence[str] = ()

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of runs of equal settings but for the seed, the best first."""
        return best_groups_first(group_runs(self.runs, self.is_in_effect), self.metric)

    @cached_property
    def differences(self) -> list[Difference | None]:
        """How each group differs from the best one of several runs."""
        return compare_groups(self.groups, self.metric)

    @property
    def has_groups(self) -> bool:
        """Whether any group has several runs."""
        return any(len(each.runs) > 1 for each in self.groups)

    @property
    def head(self) -> tuple[str, ...]:
        """The names of the columns of `result_rows`."""
        is_shown = self.metric in HEAD or self.metric == monitored_metric(self.runs)
        return HEAD if is_shown else (*HEAD[:2], self.metric, *HEAD[2:])

    def result_rows(self) -> list[tuple[str, ...]]:
        """Return a row of cells for each run, in the order of `head`."""
        rows = []
        for name, run in zip(run_names(self.runs), self.runs, strict=True):
            cells = {
                **{key: format_value(key, value) for key, value in metrics_of(run).items()},
                "run": name + (" (debug)" if is_debug(run) else ""),
                "best": f"{run.best['monitored']} {run.best['value']:.4f}",
            }
            if run.test and run.test[1]:
                low, high = run.test[1]
                cells["test accuracy"] += f" ({low:.3f} to {high:.3f})"
            rows.append(tuple(cells.get(each, "-") for each in self.head))
        return rows

    def best_cells(self) -> set[tuple[int, int]]:
        """Return (row, column) of the best cell of each column of `result_rows` that has one."""
        cells = set()
        columns = {name: name for name in (*_MARKED, self.metric) if name in self.head}
        shared = monitored_metric(self.runs)
        if shared and shared in (self.metric, ranking_metric(self.runs)) and shared != "accuracy":
            columns["best"] = shared
        for column, metric in columns.items():
            values = [
                (metrics_of(run).get(metric), row)
                for row, run in enumerate(self.runs)
                if not is_debug(run)
            ]
            known = [(value, row) for value, row in values if value is not None]
            if len({value for value, _ in known}) > 1:
                choose = min if is_less_better(metric, self.runs) else max
                best, _ = choose(known)
                cells |= {(row, self.head.index(column)) for value, row in known if value == best}
        return cells

    def group_table(self) -> list[tuple[str, ...]]:
        """Return the head and a row for each group; [] if no group has several runs."""
        if not self.has_groups:
            return []
        interval = f"{CONFIDENCE:.0%} interval"
        head = ("group", "runs", self.metric, "deviation", interval)
        rows: list[tuple[str, ...]] = [(*head, "difference", interval, "p", "more than chance")]
        for group, difference in zip(self.groups, self.differences, strict=True):
            found = group.summarize(self.metric)
            is_fraction = abs(found["mean"] or 0) < 100
            cells = ("", "", "", "")
            if difference:
                p_value = difference.p_value
                cells = (
                    f"{difference.value:+,.4f}" if is_fraction else f"{difference.value:+,.4g}",
                    format_interval(difference.interval),
                    "" if p_value is None else f"{p_value:.2g}" if p_value >= 1e-4 else "<0.0001",
                    _ANSWERS[difference.is_more_than_chance],
                )
            rows.append(
                (
                    group.name,
                    group.size,
                    format_value(self.metric, found["mean"]),
                    format_number(found["standard_deviation"]),
                    format_interval(found["mean_interval"]),
                    *cells,
                )
            )
        return rows

    def group_notes(self) -> list[str]:
        """Return what to know about the table of groups, a line each."""
        if not self.has_groups and len(self.groups) > 1:
            return [
                "One run for each: whether a difference is more than chance shows only after "
                "training with several seeds, as with --seeds 0,1,2."
            ]
        known = [each for each in self.differences if each and each.p_value is not None]
        notes = []
        best = find_reference(self.groups, self.metric)
        if known and best:
            methods = " and ".join(sorted({str(each.method) for each in known}, reverse=True))
            count = f", Holm's correction for {len(known)} comparisons" if len(known) > 1 else ""
            notes.append(
                f"Differences from {best.name} by {methods} t test{count}; a p of less than "
                f"{1 - CONFIDENCE:.2f} is more than chance."
            )
        few = [each.name for each in self.groups if len(each.values(self.metric)) < _FEW_RUNS]
        if few and len(self.groups) > 1:
            notes.append(
                f"Fewer than {_FEW_RUNS} runs say little ({listed(few)}): of one there is no "
                "interval, and those of two are very wide; train with more seeds."
            )
        return notes

    def setting_table(self) -> list[tuple[str, ...]]:
        """Return the head and a row for each setting in which the runs, or groups, differ."""
        rows = setting_rows(self.runs, self.is_in_effect)
        head = run_names(self.runs)
        if self.has_groups:
            head = [each.name for each in self.groups]
            numbers = {id(run): number for number, run in enumerate(self.runs)}
            members = [[numbers[id(run)] for run in each.runs] for each in self.groups]
            rows = [
                (key, *(", ".join(_sorted({values[n] for n in each})) for each in members))
                for key, *values in rows
            ]
            rows = [row for row in rows if len({*row[1:]}) > 1]
        return [("setting", *head), *rows] if rows else []

    @property
    def warnings(self) -> list[str]:
        """What speaks against comparing the runs at all."""
        return data_warnings(self.runs)


def _sorted(texts: Iterable[str]) -> list[str]:
    """Return texts in order, numbers by value."""
    return sorted(texts, key=lambda text: (len(text), text))
