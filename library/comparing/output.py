"""A comparison as text for a terminal, CSV, JSON, Markdown, and as a page with curves."""

import csv
import io
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from os.path import relpath
from pathlib import Path
from typing import Any

from library.comparing.comparison import Comparison
from library.comparing.find_runs import run_names
from library.comparing.groups import setting_rows
from library.comparing.metrics import metrics_of, ranking_metric
from library.errors import printable
from library.evaluation.intervals import CONFIDENCE
from library.evaluation.table import format_table
from library.figures.html import inline_svg, render
from library.figures.training_curves import draw_overlaid_curves
from library.files import write_file
from library.messages import counted
from library.reporting.runs import REPORT, Run

PAGE, SUMMARY = "compare.html", "summary.md"
# Groups whose curves are drawn; more lines could not be told apart.
_MAX_CURVES = 10
_CURVES = ("loss", "accuracy")


def format_text(comparison: Comparison, columns: int) -> Iterator[str]:
    """Yield the lines of all tables, for a terminal.

    Args:
        comparison: The comparison.
        columns: Width of the terminal. Tables that are wider become a paragraph for each row.
    """
    best = comparison.best_cells()
    results = [
        tuple(f"{cell}*" if (row, n) in best else cell for n, cell in enumerate(cells))
        for row, cells in enumerate(comparison.result_rows())
    ]
    yield from _format_rows([comparison.head, *results], {0, 1}, columns)
    if best:
        yield "* the best of its column"
    if groups := comparison.group_table():
        yield ""
        yield from _format_rows(groups, {0, 1}, columns)
    for line in comparison.group_notes():
        yield from textwrap.wrap(printable(line), columns)
    yield ""
    if settings := comparison.setting_table():
        yield from _format_rows(settings, set(range(len(settings[0]))), columns)
    else:
        yield "no setting differs"


def _format_rows(rows: Sequence[Sequence[str]], left: set[int], columns: int) -> Iterator[str]:
    """Yield the lines of a table if it is narrow enough, else a paragraph for each row."""
    head, *rows = ([printable(cell) for cell in row] for row in rows)
    lines = list(format_table([head, *rows], left))
    if max(map(len, lines)) <= columns:
        yield from lines
        return
    for title, *cells in rows:
        yield title
        named = zip(head[1:], cells, strict=True)
        parts = [f"{name} {cell}" for name, cell in named if cell]
        for line in textwrap.wrap("; ".join(parts), columns - 2, break_on_hyphens=False):
            yield f"  {line}"


def to_json(comparison: Comparison) -> str:
    """Return all numbers of a comparison as JSON."""
    metrics = dict.fromkeys(name for run in comparison.runs for name in metrics_of(run))
    groups = [
        {
            "group": group.name,
            "runs": [str(run.folder) for run in group.runs],
            "metrics": {name: group.summarize(name) for name in metrics},
            "difference": each and {**asdict(each), "more_than_chance": each.is_more_than_chance},
        }
        for group, each in zip(comparison.groups, comparison.differences, strict=True)
    ]
    content = {
        "sorted_by": comparison.metric,
        "confidence": CONFIDENCE,
        "runs": [{"settings": settings, **run} for run, settings in _records(comparison)],
        "groups": groups,
        "warnings": [*comparison.warnings, *comparison.skipped],
    }
    return json.dumps(content, indent=1, allow_nan=False)


def to_csv(comparison: Comparison) -> str:
    """Return a row for each run as CSV: group, metrics, and the settings that differ."""
    rows = [run | settings for run, settings in _records(comparison)]
    text = io.StringIO()
    head = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(head), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def to_markdown(comparison: Comparison) -> str:
    """Return the tables as Markdown."""
    return render_comparison("comparison.md", comparison).rstrip("\n")


# The formats of `--format`, but for text.
FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "csv": to_csv,
    "json": to_json,
    "md": to_markdown,
}


def _records(comparison: Comparison) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return (run, group and metrics; the settings that differ) of each run."""
    runs = comparison.runs
    names = {id(run): each.name for each in comparison.groups for run in each.runs}
    rows = setting_rows(runs, comparison.is_in_effect)
    return [
        (
            {"run": name, "group": names.get(id(run)), **metrics_of(run)},
            {key: values[number] for key, *values in rows},
        )
        for number, (name, run) in enumerate(zip(run_names(runs), runs, strict=True))
    ]


def render_comparison(template: str, comparison: Comparison, folder: Path | None = None) -> str:
    """Return the tables and the curves as HTML, or the tables as Markdown.

    Args:
        template: `comparison.html` or `comparison.md`.
        comparison: The comparison.
        folder: Where the page will lie; it links to the runs' reports from there.
    """
    runs = comparison.runs
    histories = {
        group.name: found
        for group in comparison.groups
        if (found := [run.history for run in group.runs if run.history])
    }
    shown = dict(list(histories.items())[:_MAX_CURVES])
    curves = dict.fromkeys((*_CURVES, ranking_metric(runs), comparison.metric))
    drawn = [name for name in curves if any(name in run.best["validation"] for run in runs)]
    return render(
        "library.comparing",
        template,
        heading=counted(len(runs), "run"),
        head=comparison.head,
        results=comparison.result_rows(),
        best=comparison.best_cells(),
        links=[_report_link(run, folder) for run in runs],
        metric=comparison.metric,
        groups=comparison.group_table(),
        group_notes=comparison.group_notes(),
        curves=[inline_svg(draw_overlaid_curves(shown, name)) for name in drawn if shown],
        hidden_curves=len(histories) - len(shown),
        settings=comparison.setting_table(),
        notes=[*comparison.warnings, *comparison.skipped],
    )


def write_comparison(folder: Path, comparison: Comparison) -> tuple[Path, Path]:
    """Write the page and the Markdown summary into a folder, and return both paths."""
    page, summary = Path(folder) / PAGE, Path(folder) / SUMMARY
    for path, template in ((page, "comparison.html"), (summary, "comparison.md")):
        write_file(path, render_comparison(template, comparison, Path(folder)))
    return page, summary


def _report_link(run: Run, folder: Path | None) -> str | None:
    """Return the relative URL of a run's report, None if there is none."""
    page = run.folder / REPORT
    return Path(relpath(page, folder)).as_posix() if folder and page.is_file() else None
