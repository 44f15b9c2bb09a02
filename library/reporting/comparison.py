"""Runs side by side: what they reached, and in which settings they differ."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from library.errors import DataError, printable
from library.evaluation.table import format_table
from library.figures.html import render
from library.files import write_file
from library.messages import counted
from library.reporting.runs import Run, read_runs

PAGE, SUMMARY = "compare.html", "summary.md"
HEAD = ("run", "best", "epoch", "accuracy", "test accuracy", "time", "images/s", "parameters")
# Settings that only say where a run lies.
_PATHS = ("run_dir", "model_dir", "best_model_dir", "cache_dir")


def find_runs(folders: Sequence[str | Path], parent: Path) -> tuple[list[Run], list[str], Path]:
    """Read the runs to compare.

    Args:
        folders: The runs; if there are none, all folders in `parent`.
        parent: The folder that usually holds the runs.

    Returns:
        The runs, the one with the highest validation accuracy first; a line for each folder that is
        not a run; the folder that holds the runs.

    Raises:
        DataError: No folder is a run.
    """
    parent = Path(folders[0]).parent if folders else parent
    if not folders and parent.is_dir():
        folders = sorted(each for each in parent.iterdir() if each.is_dir())
    runs, skipped = read_runs(each for each in folders if Path(each).name not in (PAGE, SUMMARY))
    if not runs:
        reason = skipped[0].removeprefix("skipped: ") if skipped else f"none in {parent}"
        raise DataError(f"no run to compare: {reason}")
    return best_first(runs), skipped, parent


def best_first(runs: Iterable[Run]) -> list[Run]:
    """Return the runs sorted by validation accuracy, the highest first."""
    return sorted(runs, key=lambda run: -run.best["validation"].get("accuracy", 0.0))


def result_rows(runs: Iterable[Run]) -> list[tuple[str, ...]]:
    """Return a row of cells for each run, in the order of HEAD."""
    return [
        (
            str(run.folder),
            f"{run.best['monitored']} {run.best['value']:.4f}",
            str(run.best["epoch"]),
            _accuracy(run.best["validation"].get("accuracy")),
            _accuracy(*run.test or (None,)),
            _duration(run.seconds),
            _count(run.images_per_second),
            _count(run.parameters),
        )
        for run in runs
    ]


def setting_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Return (key, value in each run …) of the settings in which the runs differ.

    A dash marks a setting that the version behind a run did not have; it counts as no difference.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in _PATHS)
    rows = [(key, *(run.settings.get(key, "-") for run in runs)) for key in keys]
    return [row for row in rows if len({*row[1:]} - {"-"}) > 1]


def format_comparison(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the lines of both tables, for a terminal."""
    yield from format_table(_printable([HEAD, *result_rows(runs)]), left=(0, 1))
    yield ""
    if settings := setting_rows(runs):
        rows = [("setting", *_names(runs)), *settings]
        yield from format_table(_printable(rows), left=range(len(rows[0])))
    else:
        yield "no setting differs"


def render_comparison(template: str, runs: Sequence[Run], skipped: Sequence[str]) -> str:
    """Return both tables as HTML or Markdown.

    Args:
        template: `comparison.html` or `comparison.md`.
        runs: The runs, in order.
        skipped: A line for each folder that is not a run.
    """
    return render(
        "library.reporting",
        template,
        heading=counted(len(runs), "run"),
        head=HEAD,
        results=result_rows(runs),
        settings_head=("setting", *_names(runs)),
        settings=setting_rows(runs),
        skipped=skipped,
    )


def write_comparison(
    folder: Path, runs: Sequence[Run], skipped: Sequence[str]
) -> tuple[Path, Path]:
    """Write the page and the Markdown summary, and return both paths.

    Args:
        folder: Where to write.
        runs: The runs, in order.
        skipped: A line for each folder that is not a run.
    """
    page, summary = Path(folder) / PAGE, Path(folder) / SUMMARY
    write_file(page, render_comparison("comparison.html", runs, skipped))
    write_file(summary, render_comparison("comparison.md", runs, skipped))
    return page, summary


def _names(runs: Iterable[Run]) -> list[str]:
    return [str(run.folder) for run in runs]


def _printable(rows: Iterable[Iterable[str]]) -> list[list[str]]:
    return [[printable(cell) for cell in row] for row in rows]


def _accuracy(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
