"""`curves.svg`: loss and accuracy of training and validation, epoch by epoch."""

import io
from pathlib import Path

from library.files import write_file

# Readable on white and on black, since the picture has no background of its own.
_INK = "#7a7a7a"
_COLORS = {"training": "#4c8bf5", "validation": "#f0803c"}


def write_curves(path, rows, best_epoch=None):
    """Draw the rows of a history (dicts as in history.csv). The best epoch gets a dotted line.

    Does nothing without rows.
    """
    if not rows:
        return
    write_file(Path(path), draw_curves(rows, best_epoch))


def draw_curves(rows, best_epoch=None, names=("loss", "accuracy"), size=(9, 3.4)):
    """Return an SVG, as bytes, with a diagram beside another for each name; `size` in inches."""
    # Late and without pyplot: it takes a while to import, and wants no screen this way.
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text; and the same rows always give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": names[0]}):
        figure = Figure(figsize=size, layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            _draw(axes, rows, name, best_epoch)
        content = io.BytesIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    return content.getvalue()


def _draw(axes, rows, name, best_epoch):
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) < 4 else None  # Few points make no line.
    for split, column in (("training", name), ("validation", f"validation_{name}")):
        values = [row[column] for row in rows]
        axes.plot(epochs, values, label=split, color=_COLORS[split], marker=marker)
    if best_epoch is not None:
        axes.axvline(best_epoch, color=_INK, linestyle=":", label=f"best: epoch {best_epoch}")
    axes.set_title(name, color=_INK)
    axes.set_xlabel("epoch", color=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(colors=_INK)
    axes.set_facecolor("none")
    axes.grid(color=_INK, alpha=0.25)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.legend(labelcolor=_INK, framealpha=0)
