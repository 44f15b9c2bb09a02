"""Metrics as tables of text: one of the whole split, one of its classes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from library.errors import printable

# The metrics of each class, in the order of columns.
CLASS_METRICS = ("precision", "recall", "f1", "roc_auc", "pr_auc")
# Of more classes, only those with the lowest F1 are shown; the report shows all.
_MAX_CLASSES = 30
_MAX_ABSENT = 10
# (low, high); None if the metric is undefined in all resamples.
Interval = tuple[float, float] | None
_WORDS = {"roc": "ROC", "pr": "PR", "auc": "AUC", "f1": "F1", "ece": "calibration error"}


def format_metrics(metrics: dict) -> Iterator[str]:
    """Yield the lines of both tables, for metrics as compute_metrics returns them."""
    head = ("metric", "value", f"{metrics['confidence']:.0%} interval")
    rows = [
        (label, format_number(value), format_interval(interval))
        for label, value, interval in overall_metrics(metrics)
    ]
    if metrics.get("temperature") is not None:
        rows.append(("temperature", format_number(metrics["temperature"]), ""))
    yield from format_table([head, *rows], left=(0,))
    yield ""
    yield from _format_classes(metrics)


def overall_metrics(metrics: dict) -> Iterator[tuple[str, float | None, Interval]]:
    """Yield (label, value, interval) of each metric of the whole split; None: undefined."""
    for name in metric_names(metrics):
        yield metric_label(name, metrics["top_k"]), metrics[name], metrics["intervals"].get(name)


def metric_names(metrics: Mapping[str, Any]) -> list[str]:
    """Return the names of the metrics of a whole split, as compute_metrics returns them."""
    return [
        name
        for name, value in metrics.items()
        if name not in ("confidence", "temperature")
        and (isinstance(value, float) or (value is None and name in metrics["intervals"]))
    ]


def metric_label(name: str, top_k: int | None = None) -> str:
    """Return a metric's name as people write it: `macro_roc_auc` → macro ROC AUC."""
    if name == "top_k_accuracy":
        return f"top-{top_k} accuracy"
    plain = name.removeprefix("calibrated_")
    label = " ".join(_WORDS.get(word, word) for word in plain.split("_"))
    return label if plain == name else f"{label} with temperature"


def format_number(value: float | None) -> str:
    """Return a metric's value with four decimals, or a dash if it is undefined."""
    return "-" if value is None else f"{value:.4f}"


def format_interval(interval: Interval) -> str:
    """Return an interval such as `0.9312 to 0.9407`, or nothing if there is none."""
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def format_table(rows: Sequence[Sequence[str]], left: Collection[int]) -> Iterator[str]:
    """Yield the lines of a table. Columns whose numbers are in `left` are aligned left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _format_classes(metrics: dict) -> Iterator[str]:
    rows = list(metrics["classes"].items())
    if len(rows) > _MAX_CLASSES:
        yield f"{_MAX_CLASSES} of {len(rows):,} classes, those with the lowest F1:"
        rows.sort(key=lambda row: 2.0 if row[1]["f1"] is None else row[1]["f1"])
    lines = [
        (printable(name), f"{row['images']:,}", *(format_number(row[n]) for n in CLASS_METRICS))
        for name, row in rows[:_MAX_CLASSES]
    ]
    head = ("class", "images", *map(metric_label, CLASS_METRICS))
    yield from format_table([head, *lines], left=(0,))
    if absent := metrics["absent"]:
        more = f" and {len(absent) - _MAX_ABSENT:,} more" if absent[_MAX_ABSENT:] else ""
        names = ", ".join(map(printable, absent[:_MAX_ABSENT]))
        yield f"not in this split, so not in the averages over classes: {names}{more}"
