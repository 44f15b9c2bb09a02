"""Measures as a table for people: on stderr, where the JSON goes to stdout."""

from library.errors import printable

# More classes than these are in the report, and here the worst of them.
_CLASSES = 30
_COLUMNS = ("precision", "recall", "f1", "roc_auc", "pr_auc")
_WORDS = {
    "exact_match": "exact match",
    "ece": "calibration error",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "f1": "F1",
}


def format_metrics(result):
    """Return the lines of a table of all measures, as measures.py gives them."""
    yield from _overall(result)
    yield ""
    yield from _classes(result)


def overall_rows(result):
    """Give (words, value, interval or None) of each measure of the whole split, in order."""
    known = result["intervals"]
    for name, value in result.items():
        # Some are None: not defined here.
        is_measure = isinstance(value, float) or (value is None and name in known)
        if is_measure and name not in ("confidence", "temperature"):
            yield words_of(name, result["top_k"]), value, known.get(name)


def words_of(name, top_k=None):
    """Return a measure's name as words."""
    if name == "top_k_accuracy":
        return f"top-{top_k} accuracy"
    if name.startswith("calibrated_"):
        return f"{words_of(name.removeprefix('calibrated_'))} with temperature"
    for prefix in ("macro", "weighted"):
        if name.startswith(f"{prefix}_"):
            return f"{prefix} {words_of(name.removeprefix(f'{prefix}_'))}"
    return _WORDS.get(name, name.replace("_", " "))


def number(value):
    """Return a measure as text; a dash for what is not defined."""
    return "-" if value is None else f"{value:.4f}"


def _overall(result):
    percent = f"{result['confidence']:.0%} interval"
    rows = [(words, number(value), _between(each)) for words, value, each in overall_rows(result)]
    if result.get("temperature") is not None:
        rows.append(("temperature", number(result["temperature"]), ""))
    yield from aligned([("measure", "value", percent), *rows], left=(0,))


def _classes(result):
    rows = list(result["classes"].items())
    shown = rows
    if len(rows) > _CLASSES:
        shown = sorted(rows, key=lambda row: 2.0 if row[1]["f1"] is None else row[1]["f1"])
        shown = shown[:_CLASSES]
        yield f"the {_CLASSES} of {len(rows):,} classes with the lowest F1 (the report has all)"
    lines = [
        (printable(name), f"{row['images']:,}", *(number(row[each]) for each in _COLUMNS))
        for name, row in shown
    ]
    head = ("class", "images", *(words_of(each) for each in _COLUMNS))
    yield from aligned([head, *lines], left=(0,))
    if result["absent"]:
        absent = ", ".join(map(printable, result["absent"][:10]))
        more = f" and {len(result['absent']) - 10:,} more" if result["absent"][10:] else ""
        yield f"not in this split, and left out of the means over classes: {absent}{more}"


def _between(interval):
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def aligned(rows, left):
    """Yield the lines of a table; the columns `left` (numbers) are words, the others figures."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = (
            cell.ljust(width) if n in left else cell.rjust(width)
            for n, (cell, width) in enumerate(cells)
        )
        yield "  ".join(aligned).rstrip()
