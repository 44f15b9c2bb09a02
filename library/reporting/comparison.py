"""Runs side by side: what they reached, and in which settings they differ."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os.path import relpath
from pathlib import Path

from library.errors import DataError, printable
from library.evaluation.table import format_table
from library.figures.html import inline_svg, render
from library.figures.training_curves import draw_overlaid_curves
from library.files import write_file
from library.messages import counted, listed
from library.reporting.runs import REPORT, Run, read_runs

PAGE, SUMMARY = "compare.html", "summary.md"
HEAD = ("run", "best", "epoch", "accuracy", "test accuracy", "time", "images/s", "parameters")
# Runs whose curves are drawn; more lines could not be told apart.
_MAX_CURVES = 10
_CURVES = ("loss", "accuracy")
# Settings that only say where a run lies.
_PATHS = ("run_dir", "model_dir", "best_model_dir", "cache_dir", "export_dir")
# Whether a setting, by name, matters beside others, setting → value.
IsInEffect = Callable[[str, Mapping[str, str]], bool]
_UNUSED = "-"


def find_runs(folders: Sequence[str | Path], parent: Path) -> tuple[list[Run], list[str], Path]:
    """Read the runs to compare.

    Args:
        folders: The runs; if there are none, all folders in `parent`.
        parent: The folder that usually holds the runs.

    Returns:
        The runs, as best_first sorts them; a line for each folder that is not a run; the folder
        that holds the runs.

    Raises:
        DataError: No folder is a run.
    """
    parent = Path(folders[0]).parent if folders else parent
    if not folders and parent.is_dir():
        folders = sorted(each for each in parent.iterdir() if each.is_dir())
    # A pattern such as out/* also names files, such as the page of the last comparison.
    folders = [each for each in map(Path, folders) if not each.is_file()]
    runs, skipped = read_runs(folders)
    if not runs:
        reason = skipped[0].removeprefix("skipped: ") if skipped else f"none in {parent}"
        raise DataError(f"no run to compare: {reason}")
    return best_first(runs), skipped, parent


def ranking_metric(runs: Iterable[Run]) -> str:
    """Return the validation metric to rank runs by: their `best_metric`, else accuracy.

    Accuracy, if they have different ones, or the loss.
    """
    monitored = {str(run.best["monitored"]).removeprefix("validation ") for run in runs}
    return monitored.pop() if len(monitored) == 1 and "loss" not in monitored else "accuracy"


def best_first(runs: Iterable[Run]) -> list[Run]:
    """Return the runs by their ranking metric, the best first, then by loss.

    Runs with --debug come last: they are evaluated on the batch that they were trained on.
    """
    runs = list(runs)
    metric = ranking_metric(runs)

    def rank(run: Run) -> tuple[bool, float, float]:
        loss = run.best["validation"].get("loss", 0.0)
        return is_debug(run), -_rank_value(run, metric), loss

    return sorted(runs, key=rank)


def _rank_value(run: Run, metric: str) -> float:
    """Return the validation metric of a run's best snapshot, negative if less is better."""
    is_lower_better = metric != "accuracy" and run.settings.get("best_metric_mode") == "min"
    return run.best["validation"].get(metric, 0.0) * (-1 if is_lower_better else 1)


def is_debug(run: Run) -> bool:
    """Return whether a run overfitted one batch, so that its results can't be compared."""
    return run.settings.get("debug") == "true"


def run_names(runs: Iterable[Run]) -> list[str]:
    """Return the runs' folders, without the path if it is the same for all."""
    folders = [run.folder for run in runs]
    if len({each.parent for each in folders}) == 1:
        return [each.name or str(each) for each in folders]
    return [str(each) for each in folders]


def data_warnings(runs: Sequence[Run]) -> list[str]:
    """Return a line if runs were trained on different images, so that no result says who is better.

    A run may even have learned what another is validated on.
    """
    groups: dict[str, list[str]] = {}
    for name, run in zip(run_names(runs), runs, strict=True):
        if run.training_data is not None:
            groups.setdefault(run.training_data, []).append(name)
    if len(groups) < 2:
        return []
    one, other = map(listed, islice(groups.values(), 2))
    return [
        f"the runs were trained on {len(groups)} different training splits (one: {one}; another: "
        f"{other}): their results can't be compared"
    ]


def result_rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Return a row of cells for each run, in the order of HEAD."""
    return [
        (
            name + (" (debug)" if is_debug(run) else ""),
            f"{run.best['monitored']} {run.best['value']:.4f}",
            str(run.best["epoch"]),
            _accuracy(run.best["validation"].get("accuracy")),
            _accuracy(*run.test or (None,)),
            _duration(run.seconds),
            _count(run.images_per_second),
            _count(run.parameters),
        )
        for name, run in zip(run_names(runs), runs, strict=True)
    ]


def best_cells(runs: Sequence[Run]) -> set[tuple[int, int]]:
    """Return (row, column) of the best cell of each column of result_rows that has a best one."""
    cells = set()
    metric = ranking_metric(runs)
    for name, value_of in (
        ("best", lambda run: None if metric == "accuracy" else _rank_value(run, metric)),
        ("accuracy", lambda run: run.best["validation"].get("accuracy")),
        ("test accuracy", lambda run: run.test and run.test[0]),
        ("time", lambda run: run.seconds and -run.seconds),
        ("images/s", lambda run: run.images_per_second),
    ):
        values = [(n, value_of(run)) for n, run in enumerate(runs) if not is_debug(run)]
        known = [(n, value) for n, value in values if value is not None]
        if len({value for _, value in known}) > 1:
            best = max(value for _, value in known)
            cells |= {(n, HEAD.index(name)) for n, value in known if value == best}
    return cells


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


def format_comparison(
    runs: Sequence[Run],
    columns: int,
    is_in_effect: IsInEffect = lambda name, values: True,
) -> Iterator[str]:
    """Yield the lines of both tables, for a terminal.

    Args:
        runs: The runs, in order.
        columns: Width of the terminal. Tables that are wider become a paragraph for each row.
        is_in_effect: Whether a setting matters in a run.
    """
    best = best_cells(runs)
    results = [
        [f"{cell}*" if (row, n) in best else cell for n, cell in enumerate(cells)]
        for row, cells in enumerate(result_rows(runs))
    ]
    yield from _format_rows(HEAD, results, {0, 1}, columns)
    if best:
        yield "* the best of its column"
    yield ""
    head = ("setting", *run_names(runs))
    if settings := setting_rows(runs, is_in_effect):
        yield from _format_rows(head, settings, set(range(len(head))), columns)
    else:
        yield "no setting differs"


def render_comparison(
    template: str,
    runs: Sequence[Run],
    skipped: Sequence[str],
    is_in_effect: IsInEffect = lambda name, values: True,
    folder: Path | None = None,
) -> str:
    """Return both tables and the curves as HTML, or the tables as Markdown.

    Args:
        template: `comparison.html` or `comparison.md`.
        runs: The runs, in order.
        skipped: A line for each folder that is not a run.
        is_in_effect: Whether a setting matters in a run.
        folder: Where the page will lie; it links to the runs' reports from there.
    """
    named = zip(run_names(runs), runs, strict=True)
    histories = {name: run.history for name, run in named if run.history and not is_debug(run)}
    shown = dict(list(histories.items())[:_MAX_CURVES])
    metric = ranking_metric(runs)
    curves = dict.fromkeys((*_CURVES, metric))
    return render(
        "library.reporting",
        template,
        heading=counted(len(runs), "run"),
        head=HEAD,
        results=result_rows(runs),
        best=best_cells(runs),
        links=[_report_link(run, folder) for run in runs],
        metric=metric,
        curves=[inline_svg(draw_overlaid_curves(shown, name)) for name in curves if shown],
        hidden_curves=len(histories) - len(shown),
        settings_head=("setting", *run_names(runs)),
        settings=setting_rows(runs, is_in_effect),
        notes=[*data_warnings(runs), *skipped],
    )


def write_comparison(
    folder: Path,
    runs: Sequence[Run],
    skipped: Sequence[str],
    is_in_effect: IsInEffect = lambda name, values: True,
) -> tuple[Path, Path]:
    """Write the page and the Markdown summary, and return both paths.

    Args:
        folder: Where to write.
        runs: The runs, in order.
        skipped: A line for each folder that is not a run.
        is_in_effect: Whether a setting matters in a run.
    """
    page, summary = Path(folder) / PAGE, Path(folder) / SUMMARY
    for path, template in ((page, "comparison.html"), (summary, "comparison.md")):
        write_file(path, render_comparison(template, runs, skipped, is_in_effect, Path(folder)))
    return page, summary


def _format_rows(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: set[int], columns: int
) -> Iterator[str]:
    """Yield the lines of a table if it is narrow enough, else a paragraph for each row."""
    head, *rows = ([printable(cell) for cell in row] for row in (head, *rows))
    lines = list(format_table([head, *rows], left))
    if max(map(len, lines)) <= columns:
        yield from lines
        return
    for title, *cells in rows:
        yield title
        parts = [f"{name} {cell}" for name, cell in zip(head[1:], cells, strict=True)]
        for line in textwrap.wrap("; ".join(parts), columns - 2, break_on_hyphens=False):
            yield f"  {line}"


def _report_link(run: Run, folder: Path | None) -> str | None:
    """Return the relative URL of a run's report, None if there is none."""
    page = run.folder / REPORT
    return Path(relpath(page, folder)).as_posix() if folder and page.is_file() else None


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
