"""`curves.svg`: loss, accuracy and other metrics of training and validation, epoch by epoch."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from library.files import write_file

Rows = Sequence[Mapping[str, Any]]
# Readable on white and on black, because the figure has no background.
INK = "#7a7a7a"
# Around each curve, in inches: left, right, bottom, top.
_MARGINS = (0.75, 0.2, 0.55, 0.4)
_COLORS = {"training": "#4c8bf5", "validation": "#f0803c"}


def write_curves(path: str | Path, rows: Rows, best_epoch: int | None = None) -> None:
    """Write the curves as an SVG file; do nothing if there are no rows. See `draw_curves`."""
    if not rows:
        return
    names = curve_names(rows)
    write_file(Path(path), draw_curves(rows, best_epoch, names, (4.5 * len(names), 3.4)))


def curve_names(rows: Rows) -> list[str]:
    """Return the metrics to draw: loss, accuracy, and those that only validation has."""
    columns = dict.fromkeys(column for row in rows for column in row)
    known = {f"validation_{column}": None for column in columns}
    others = [each for each in columns if each.startswith("validation_") and each not in known]
    return ["loss", "accuracy", *(each.removeprefix("validation_") for each in others)]


def draw_curves(
    rows: Rows,
    best_epoch: int | None = None,
    names: Sequence[str] = ("loss", "accuracy"),
    size: tuple[float, float] = (9, 3.4),
) -> bytes:
    """Draw one diagram per metric, side by side.

    Args:
        rows: The rows of a history, with the columns of history.csv.
        best_epoch: Gets a dotted line.
        names: The metrics.
        size: (width, height) in inches.

    Returns:
        An SVG; the same rows always make the same bytes.
    """
    return draw_figure(
        names,
        size,
        lambda axes, name: _draw_metric(axes, rows, name, best_epoch),
        margins=_MARGINS,
    )


def draw_overlaid_curves(
    histories: Mapping[str, Sequence[Rows]], metric: str, size: tuple[float, float] = (4.6, 3.3)
) -> bytes:
    """Draw the validation curves of runs into a diagram: a color for each group of runs.

    A group of several runs is a thin line for each, and a thick one for their mean over the epochs
    that all of them evaluated.

    Args:
        histories: Name of each group → the rows of each run's history.
        metric: Its name, such as `loss`.
        size: (width, height) in inches.

    Returns:
        An SVG; the same rows always make the same bytes.
    """

    def draw(axes: Any, name: str) -> None:
        for number, (group, runs) in enumerate(histories.items()):
            curves = [
                {row["epoch"]: row.get(f"validation_{metric}", math.nan) for row in rows}
                for rows in runs
            ]
            style = {"color": f"C{number}", "marker": "o" if max(map(len, curves)) < 4 else None}
            if len(curves) > 1:
                for each in curves:
                    axes.plot([*each], [*each.values()], **style, linewidth=0.8, alpha=0.45)
            shared = [each for each in curves[0] if all(each in other for other in curves)]
            means = [sum(each[epoch] for each in curves) / len(curves) for epoch in shared]
            axes.plot(shared, means, label=group, **style)
        axes.set_title(name, color=INK, parse_math=False)

    return draw_figure((f"validation {metric}",), size, draw)


def draw_figure(
    names: Sequence[str],
    size: tuple[float, float],
    draw: Callable[[Any, str], None],
    xlabel: str = "epoch",
    margins: tuple[float, float, float, float] | None = None,
) -> bytes:
    """Return an SVG with one diagram per name, side by side.

    Args:
        names: What the diagrams show.
        size: (width, height) in inches.
        draw: Draws a diagram into axes of matplotlib, given the name.
        xlabel: What the horizontal axis shows; epochs are whole.
        margins: Left, right, bottom and top of each diagram, in inches; None: what its labels
            need, which takes twice as long to find as to draw.
    """
    # Imported late, because it is slow; not pyplot, which may look for a screen.
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, and the salt makes the ids reproducible.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": names[0]}):
        figure = Figure(figsize=size, layout=None if margins else "constrained")
        if margins:
            _set_margins(figure, margins, len(names))
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            draw(axes, name)
            _style(axes, xlabel)
        content = io.BytesIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def _set_margins(figure: Any, margins: tuple[float, float, float, float], count: int) -> None:
    left, right, bottom, top = margins
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=(left + right) / (width / count - left - right),
    )


def _draw_metric(axes: Any, rows: Rows, name: str, best_epoch: int | None) -> None:
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 4 else None  # A few points hardly make a line.
    for split, column in (("training", name), ("validation", f"validation_{name}")):
        values = [row.get(column, math.nan) for row in rows]
        if not all(map(math.isnan, values)):
            axes.plot(epochs, values, label=split, color=_COLORS[split], marker=marker)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=INK, linestyle=":", label=f"best: epoch {best_epoch}")
    # A class name in it may hold a dollar.
    axes.set_title(name, color=INK, parse_math=False)


def _style(axes: Any, xlabel: str) -> None:
    """Use one ink for everything but the curves, and whole numbers of epochs and trials."""
    axes.set_xlabel(xlabel, color=INK)
    if xlabel in ("epoch", "trial"):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(colors=INK)
    axes.set_facecolor("none")
    axes.grid(color=INK, alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.legend(labelcolor=INK, framealpha=0)
