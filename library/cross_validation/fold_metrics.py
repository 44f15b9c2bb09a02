"""The metrics of a cross-validation: of each fold, and of all images together.

- The mean over folds has the interval of library/evaluation/repeated_runs.py. It holds for networks
  that are trained on as many images as these.
- The pooled metric is that of the out-of-fold predictions of all images, with the intervals of
  library/evaluation/intervals.py, which take the networks as given. Scores of several networks are
  pooled, so that an area under a curve may come out below that of each fold (Forman and Scholz
  2010, doi 10.1145/1882471.1882479): prefer its mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from library.evaluation.evaluate import compute_image_metrics
from library.evaluation.intervals import CONFIDENCE
from library.evaluation.metrics import EvaluationOptions, compute_metrics
from library.evaluation.predictions import Predictions, gather_scores
from library.evaluation.repeated_runs import summarize_values
from library.evaluation.table import (
    format_interval,
    format_number,
    format_table,
    metric_label,
    metric_names,
)
from library.training.parts import Objective

# More values than these are stored as float16, as other outputs are.
_MAX_FLOAT32_VALUES = 2**26


def pool_predictions(folds: Mapping[int, Predictions]) -> tuple[Predictions, np.ndarray]:
    """Return the predictions of all folds as one, and the fold of each image, int64 (n,)."""
    parts = list(folds.values())
    pooled = Predictions(
        gather_scores(each.scores[:] for each in parts),
        np.concatenate([each.labels for each in parts]),
        tuple(name for each in parts for name in each.names),
        parts[0].multi_label,
    )
    return pooled, np.repeat(np.array(list(folds), np.int64), [len(each) for each in parts])


def pool_embeddings(folds: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return the embeddings of all folds, (n, size), as float16 if they are large; or None."""
    known = [each for each in folds if each is not None]
    if len(known) < len(folds):
        return None
    pooled = np.concatenate(known)
    if pooled.size <= _MAX_FLOAT32_VALUES:
        return pooled
    largest = np.finfo(np.float16).max
    return pooled.clip(-largest, largest).astype(np.float16)


def compute_fold_metrics(
    folds: Mapping[int, Predictions],
    classes: Sequence[str],
    objective: Objective,
    options: EvaluationOptions,
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the metrics of a cross-validation as a dict for JSON, and the loss of each image.

    Args:
        folds: Number of a fold, from 1 → predictions for its images by a network that was not
            trained on them.
        classes: Class names in label order.
        objective: Computes the metrics of each image.
        options: What to compute.

    Returns:
        `metrics`: name → `mean`, `standard_deviation`, `mean_interval`, `pooled`,
        `pooled_interval`; `folds`: number → metrics; `pooled`: as compute_metrics returns them.
        Undefined values are None. And the losses, float32 (n,), in the order of the folds.
    """
    by_fold = {}
    for number, predictions in folds.items():
        values = compute_image_metrics(objective, predictions)
        by_fold[number] = compute_metrics(
            predictions, classes, values, replace(options, bootstrap_samples=0)
        )
    pooled_predictions, _ = pool_predictions(folds)
    values = compute_image_metrics(objective, pooled_predictions)
    pooled = compute_metrics(pooled_predictions, classes, values, options)
    metrics = {}
    for name in metric_names(pooled):
        per_fold = [each[name] for each in by_fold.values()]
        metrics[name] = {
            **summarize_values(per_fold, is_share=name != "loss", folds=len(folds)),
            "pooled": pooled[name],
            "pooled_interval": pooled["intervals"].get(name),
        }
    result = {
        "metrics": metrics,
        "confidence": CONFIDENCE,
        "top_k": pooled["top_k"],
        "folds": {
            number: {"images": len(folds[number]), **{name: each[name] for name in metrics}}
            for number, each in by_fold.items()
        },
        "pooled": pooled,
    }
    return result, values["loss"]


def format_fold_metrics(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of metrics as compute_fold_metrics returns them."""
    interval = f"{result['confidence']:.0%} interval"
    rows: list[tuple[str, ...]] = [("metric", "mean", "deviation", interval, "pooled", interval)]
    for name, each in result["metrics"].items():
        rows.append(
            (
                metric_label(name, result["top_k"]),
                *map(format_number, (each["mean"], each["standard_deviation"])),
                format_interval(each["mean_interval"]),
                format_number(each["pooled"]),
                format_interval(each["pooled_interval"]),
            )
        )
    yield from format_table(rows, left=(0,))
