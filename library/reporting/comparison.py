"""Runs side by side: what they reached, and what differs in their settings."""

from pathlib import Path

from library.errors import DataError, printable
from library.evaluation.table import format_table
from library.figures.html import page, table, text
from library.files import write_file
from library.messages import counted
from library.reporting.runs import read_runs

PAGE, SUMMARY = "compare.html", "summary.md"
HEAD = ("run", "best", "epoch", "accuracy", "test accuracy", "time", "images/s", "parameters")
# Where a run lies is its name.
_PLACES = ("run_dir", "model_dir", "best_model_dir", "cache_dir")


def find_runs(folders, beside):
    """Give (Runs, the best first; lines about what is none; the folder for what is written).

    Without `folders` all in the folder `beside` are meant. Raises DataError where none is a run.
    """
    folder = Path(folders[0]).parent if folders else Path(beside)
    if not folders and folder.is_dir():
        folders = sorted(each for each in folder.iterdir() if each.is_dir())
    own = (PAGE, SUMMARY)
    runs, skipped = read_runs(each for each in folders if Path(each).name not in own)
    if not runs:
        why = skipped[0].removeprefix("skipped: ") if skipped else f"none in {folder}"
        raise DataError(f"no run to compare: {why}")
    return best_first(runs), skipped, folder


def result_rows(runs):
    """Return the cells, words, of a row for each run, in the order of HEAD."""
    return [
        (
            _name(run),
            f"{run.best['monitored']} {run.best['value']:.4f}",
            str(run.best["epoch"]),
            _share(run.best["validation"].get("accuracy")),
            _test(run.test),
            _duration(run.seconds),
            _count(run.images_per_second),
            _count(run.parameters),
        )
        for run in runs
    ]


def setting_rows(runs):
    """Give (key, value in each run …) of the settings in which the runs differ.

    A dash stands for what an older version of the project did not know: no difference by itself.
    """
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in _PLACES)
    rows = [(key, *(run.settings.get(key, "-") for run in runs)) for key in keys]
    return [row for row in rows if len({*row[1:]} - {"-"}) > 1]


def best_first(runs):
    """Return the runs by their validation accuracy, the highest first."""
    return sorted(runs, key=lambda run: -run.best["validation"].get("accuracy", 0.0))


def format_comparison(runs):
    """Yield the lines of both tables, for a terminal."""
    yield from format_table([HEAD, *result_rows(runs)], left=(0, 1))
    settings = setting_rows(runs)
    yield ""
    if settings:
        shown = [tuple(map(printable, row)) for row in settings]
        yield from format_table([("what differs", *map(_name, runs)), *shown], left=range(99))
    else:
        yield "no setting differs"


def make_page(runs, skipped):
    """Return the page as a str."""
    rows = [tuple(map(text, row)) for row in result_rows(runs)]
    settings = [tuple(map(text, row)) for row in setting_rows(runs)]
    parts = [
        f"<h1>{counted(len(runs), 'run')}</h1>",
        '<p class="soft">Best and accuracy are on validation, the highest accuracy first.</p>',
        table(HEAD, rows, "classes"),
        "<h2>What differs in their settings</h2>",
        table(("setting", *map(_name, runs)), settings, "words") if settings else "<p>Nothing.</p>",
        *(f'<p class="soft">{text(line)}</p>' for line in skipped),
    ]
    return page("Runs compared", *parts)


def make_summary(runs, skipped):
    """Return the same as Markdown."""
    lines = [f"# {counted(len(runs), 'run')}", "", *_markdown([HEAD, *result_rows(runs)]), ""]
    settings = setting_rows(runs)
    if settings:
        lines += ["## What differs in their settings", ""]
        lines += [*_markdown([("setting", *map(_name, runs)), *settings]), ""]
    lines += [f"- {printable(line)}" for line in skipped]
    return "\n".join(lines).rstrip() + "\n"


def write_comparison(folder, runs, skipped):
    """Write the page and the summary into a folder. Give both paths."""
    paths = Path(folder) / PAGE, Path(folder) / SUMMARY
    for path, make in zip(paths, (make_page, make_summary), strict=True):
        write_file(path, make(runs, skipped))
    return paths


def _name(run):
    return printable(run.folder)


def _share(value):
    return "-" if value is None else f"{value:.4f}"


def _test(result):
    if result is None:
        return "-"
    accuracy, between = result
    words = f" ({between[0]:.3f} to {between[1]:.3f})" if between else ""
    return f"{accuracy:.4f}{words}"


def _count(value):
    return "-" if value is None else f"{value:,.0f}"


def _duration(seconds):
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _markdown(rows):
    escaped = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    head, *rest = (f"| {' | '.join(row)} |" for row in escaped)
    return [head, "|" + " --- |" * len(rows[0]), *rest]
