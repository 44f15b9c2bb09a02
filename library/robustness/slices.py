"""Slices: the metrics of images that share a property or an attribute, the weakest first.

Each slice is compared with all other images by Fisher's exact test (Fisher 1935) of its share of
correct predictions. Of many slices some differ by chance: Holm's correction (Holm 1979,
Scandinavian Journal of Statistics 6) keeps the probability of naming even one such slice below the
level, however the slices overlap.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.errors import printable
from library.evaluation.confusion import row_chunks, weighted_mean
from library.evaluation.intervals import bootstrap_weights, mean_interval, share_interval
from library.evaluation.predictions import Predictions
from library.evaluation.split_metric import CountedMetric
from library.evaluation.table import format_interval, format_number, format_table
from library.files import write_file
from library.robustness.attributes import make_groups

SLICE_TABLE = ".slices.csv"
# Of fewer images little is known; they are marked.
FEW_IMAGES = 30
_SHOWN = 8


@dataclass(frozen=True)
class SliceOptions:
    """How to compute intervals.

    Attributes:
        bootstrap_samples: Resamples for the loss's intervals; 0: none.
        seed: Seed of the resamples.
    """

    bootstrap_samples: int = 1000
    seed: int = 0


def measure_slices(
    predictions: Predictions,
    losses: np.ndarray,
    attributes: Mapping[str, Sequence[str] | np.ndarray],
    options: SliceOptions,
) -> list[dict[str, Any]]:
    """Return the metrics of each slice, as dicts for JSON.

    The weakest come first: those whose interval of accuracy ends lowest, so that a few unlucky
    images do not count for more than a weakness that is certain.

    Args:
        predictions: Those of n images.
        losses: The loss of each image, float (n,).
        attributes: Name → a text or a number for each image: see `make_groups`.
        options: How to compute intervals.

    Returns:
        Dicts with `accuracy` (if multi-label, `exact_match`), its interval, that of the rest, the
        difference and its p-values, `loss` and its interval, and `macro_f1`.
    """
    rows = [
        {"attribute": name, "value": value, **_measure(predictions, losses, chosen, options)}
        for name, values in attributes.items()
        for value, chosen in make_groups(name, values).items()
    ]
    adjusted = adjust_by_holm([row["p_value"] for row in rows])
    rows = [{**row, "adjusted_p_value": p} for row, p in zip(rows, adjusted, strict=True)]
    return sorted(rows, key=lambda row: row["interval"][1])


def fisher_test(correct: int, count: int, all_correct: int, all_count: int) -> float:
    """Return the two-sided p-value of Fisher's exact test.

    Args:
        correct: Correct predictions in a slice.
        count: Images in it.
        all_correct: Correct predictions in the whole split.
        all_count: Images in it.

    Returns:
        The probability of a slice of as many images, drawn at random, that is at most as likely.
    """
    log_factorials = np.append(0.0, np.cumsum(np.log(np.arange(1, all_count + 1))))

    def log_choose(total: int, part: np.ndarray | int) -> Any:
        return log_factorials[total] - log_factorials[part] - log_factorials[total - part]

    possible = np.arange(max(0, count - (all_count - all_correct)), min(count, all_correct) + 1)
    logs = log_choose(all_correct, possible) + log_choose(all_count - all_correct, count - possible)
    logs -= log_choose(all_count, count)
    # Equally likely ones differ by rounding.
    is_as_extreme = logs <= logs[correct - possible[0]] + 1e-7
    return float(min(1.0, np.exp(logs[is_as_extreme]).sum()))


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that Holm's method adjusts for their number, in the same order."""
    order = np.argsort(p_values, kind="stable")
    factors = len(order) - np.arange(len(order))
    raised = np.maximum.accumulate(np.asarray(p_values)[order] * factors) if len(order) else order
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(raised, 1)
    return adjusted.tolist()


def share_name(predictions: Predictions) -> str:
    """Return what the share of correct predictions is called in an evaluation's JSON."""
    return "exact_match" if predictions.multi_label else "accuracy"


def format_slices(rows: Sequence[dict], name: str) -> Iterator[str]:
    """Yield lines about the weakest slices; `name` is the metric's, as from `share_name`."""
    if not rows:
        yield "no slices: no attribute divides the images"
        return
    head = ("attribute", "value", "images", name, "95% interval", "others", "adjusted p")
    lines = [
        (
            printable(row["attribute"]),
            printable(row["value"]),
            f"{row['images']:,}{'*' if row['is_small'] else ''}",
            format_number(row[name]),
            format_interval(row["interval"]),
            format_number(row["others"]),
            f"{row['adjusted_p_value']:.2g}",
        )
        for row in rows[:_SHOWN]
    ]
    yield f"weakest {len(lines)} of {len(rows):,} slices:"
    yield from format_table([head, *lines], left=(0, 1))
    yield f"adjusted p: Fisher's exact test against all others, for {len(rows):,} slices (Holm)"
    if any(row["is_small"] for row in rows[:_SHOWN]):
        yield f"* fewer than {FEW_IMAGES} images"


def write_slices(path: Path, rows: Sequence[dict]) -> None:
    """Write the slices as CSV; an interval is two columns."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    flat = [dict(_flatten(row)) for row in rows]
    writer.writerow(flat[0] if flat else ["attribute", "value", "images"])
    writer.writerows(row.values() for row in flat)
    write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _flatten(row: dict) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if name.endswith("interval"):
            low, high = value or ("", "")
            yield f"{name}_low", low
            yield f"{name}_high", high
        else:
            yield name, value


def _measure(
    predictions: Predictions, losses: np.ndarray, chosen: np.ndarray, options: SliceOptions
) -> dict[str, Any]:
    """Return the metrics of the images that are `chosen`, bool (n,), neither none nor all."""
    correct, rows = predictions.correct, np.flatnonzero(chosen)
    found, count = int(correct[rows].sum()), len(rows)
    share, others = found / count, float(correct[~chosen].mean())
    name, own = share_name(predictions), losses[rows].astype(np.float64)
    interval = None
    if options.bootstrap_samples:
        weights = bootstrap_weights(count, options.bootstrap_samples, options.seed)
        means = np.concatenate([weighted_mean(own, each) for each in weights])
        interval = mean_interval(own, means)
    return {
        "images": count,
        "is_small": count < FEW_IMAGES,
        name: share,
        "interval": share_interval(share, count),
        "others": others,
        "difference": share - others,
        "p_value": fisher_test(found, count, int(correct.sum()), len(correct)),
        "adjusted_p_value": None,
        "loss": float(own.mean()),
        "loss_interval": interval,
        "macro_f1": _macro_f1(predictions, rows),
    }


def _macro_f1(predictions: Predictions, rows: np.ndarray) -> float | None:
    """Return the mean F1 over the classes that have images among some; None if there are none."""
    class_count = predictions.scores.shape[1]
    parts = (rows[each] for each in row_chunks(np.empty((len(rows), class_count), bool)))
    batches = ((predictions.labels[each], predictions.scores[each]) for each in parts)
    value = CountedMetric("macro_f1", class_count, "f1").compute(batches)
    return None if np.isnan(value) else value
