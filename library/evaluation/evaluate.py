"""Evaluate a snapshot on a split: predictions, metrics, and what they are metrics of, as JSON."""

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from library.errors import DataError, DivergedError, reason_of
from library.evaluation.confusion import Rows, row_chunks
from library.evaluation.image_table import IMAGE_TABLE, write_prediction_table
from library.evaluation.metrics import EvaluationOptions, add_calibrated_metrics, compute_metrics
from library.evaluation.predictions import Predictions, late_bar, predict_batches
from library.files import write_file
from library.inputs.examples import Split
from library.inputs.interfaces import EvaluationInputs
from library.messages import counted
from library.saving.snapshots import Snapshot
from library.training.parts import Objective

logger = logging.getLogger(__name__)

# Where the summaries lie, in a run's folder.
EVALUATION_FOLDER = "evaluation"


@dataclass(frozen=True)
class EvaluationResult:
    """What a snapshot predicts for a split, and how good that is.

    Attributes:
        snapshot: What was evaluated.
        inputs: The split that it was evaluated on.
        predictions: One for each image.
        losses: The loss of each image, float32 (n,).
        metrics: As compute_metrics returns them.
    """

    snapshot: Snapshot
    inputs: EvaluationInputs
    predictions: Predictions
    losses: np.ndarray
    metrics: dict


def evaluate(
    snapshot: Snapshot,
    inputs: EvaluationInputs,
    objective: Objective,
    options: EvaluationOptions,
    validation: EvaluationInputs | None = None,
) -> EvaluationResult:
    """Evaluate a snapshot's network on a split.

    Args:
        snapshot: The network and its classes.
        inputs: The split.
        objective: Computes the metrics of each image.
        options: What to compute, on how many batches.
        validation: The split that the temperature is fitted on, perhaps `inputs` itself (see
            add_calibrated_metrics); None: no temperature.

    Raises:
        DataError: The split is empty.
        DivergedError: The network returns NaN or infinite scores.
    """

    def predict(split: EvaluationInputs) -> Predictions:
        count = split.batches_per_epoch
        if options.max_steps is not None:
            count = min(count, options.max_steps)
        bar = late_bar(split.named_batches(), "predictions", " batches", count)
        return predict_batches(snapshot.network, bar, options.max_steps, xla=options.xla)

    predictions = predict(inputs)
    if not len(predictions):
        raise DataError("the split to evaluate on is empty; convert some images first")
    _check_finite(predictions.scores)
    values = compute_image_metrics(objective, predictions)
    metrics = compute_metrics(predictions, snapshot.classes, values, options)
    if validation is not None:
        fitted_on = predictions if validation is inputs else predict(validation)

        def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
            return _compute_values(objective, scores, labels)["loss"]

        metrics = add_calibrated_metrics(metrics, predictions, fitted_on, losses, options)
    return EvaluationResult(snapshot, inputs, predictions, values["loss"], metrics)


def compute_image_metrics(objective: Objective, predictions: Predictions) -> dict[str, np.ndarray]:
    """Return the objective's metrics of each image: name → float (n,)."""
    parts = [
        _compute_values(objective, predictions.scores[rows], predictions.labels[rows])
        for rows in row_chunks(predictions.scores)
    ]
    return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}


def _compute_values(
    objective: Objective, scores: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
    kind = np.float32 if labels.ndim == 2 else labels.dtype
    values = objective.metrics(tf.constant(labels.astype(kind)), tf.constant(scores))
    return {name: each.numpy() for name, each in values.items()}


def summarize(
    result: EvaluationResult,
    split: Split,
    *,
    data_dir: str | None = None,
    is_own_data: bool = True,
) -> dict:
    """Return the metrics and what they are metrics of, as a dict for JSON.

    Args:
        result: What `evaluate` returned.
        split: The evaluated split.
        data_dir: Where the split lies.
        is_own_data: Whether the run trains on data from there.
    """
    snapshot = result.snapshot
    members = snapshot.members or (snapshot,)
    return {
        "split": split.name,
        "images": len(result.predictions),
        "images_in_split": split.examples,
        **result.metrics,
        "snapshot": str(snapshot.folder) if len(members) == 1 else None,
        "snapshot_sha256": snapshot.sha256 or None,
        "epoch": snapshot.metrics.get("epoch"),
        "parameters": snapshot.network.count_params(),
        "members": [
            {"snapshot": str(each.folder), "epoch": each.metrics.get("epoch")} for each in members
        ],
        "views": snapshot.views,
        "data": {"folder": data_dir, "fingerprint": split.fingerprint, "is_own": is_own_data},
    }


def write_summary(path: Path, summary: dict) -> None:
    """Write results as JSON, whole or not at all."""
    write_file(path, json.dumps(summary, indent=1) + "\n")


def write_results(path: Path, result: EvaluationResult, summary: dict) -> None:
    """Write the summary of an evaluation as JSON and, beside it, the table of its images."""
    classes = result.snapshot.classes
    table = path.with_suffix(IMAGE_TABLE)
    write_prediction_table(table, result.predictions, classes, result.losses)
    write_summary(path, summary)


@contextlib.contextmanager
def warn_on_error(what: object) -> Iterator[None]:
    """Log any error in the block as a warning that `what` could not be written."""
    try:
        yield
    except Exception as error:
        filename = error.filename if isinstance(error, OSError) else None
        where = f": {filename}" if filename else ""
        logger.warning(f"could not write {what} ({reason_of(error)}{where})")


def describe_scope(summary: dict) -> Iterator[str]:
    """Yield what the metrics are of, if it is more or less than one network and a whole split."""
    if len(summary["members"]) > 1:
        yield f"mean of {len(summary['members'])} networks"
    if summary["views"] > 1:
        yield f"mean of {summary['views']} views of each image"
    if summary["images"] < summary["images_in_split"]:
        yield f"first {summary['images']:,} of {counted(summary['images_in_split'], 'image')}"
    if not summary["data"]["is_own"]:
        yield f"data from {summary['data']['folder']}"


def _check_finite(scores: Rows) -> None:
    bad = sum(np.count_nonzero(~np.isfinite(scores[rows]).all(1)) for rows in row_chunks(scores))
    if bad:
        raise DivergedError(
            f"the network returns NaN or infinite scores for {bad:,} of "
            f"{counted(len(scores), 'image')}: it has diverged; evaluate an earlier --checkpoint"
        )
