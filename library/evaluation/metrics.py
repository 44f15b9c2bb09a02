"""Metrics of predictions, each with a confidence interval, as a dict for JSON."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from library.evaluation import confusion, intervals
from library.evaluation.calibration import CalibrationBins, fit_temperature
from library.evaluation.class_table import ClassTable
from library.evaluation.predictions import Predictions
from library.evaluation.table import Interval

# With more classes nearly all cells of the confusion matrix are 0, so only the others are listed.
_MAX_MATRIX_CLASSES = 300

# Weights (n, samples) → name → (samples,).
_Compute = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class EvaluationOptions:
    """What to compute, and on how much of a split.

    Attributes:
        top_k: The k of top-k accuracy.
        bootstrap_samples: Resamples behind confidence intervals; 0: no intervals.
        seed: Seed of the resamples.
        max_steps: Batches to evaluate on; None: all.
        xla: Whether XLA compiles the network.
    """

    top_k: int
    bootstrap_samples: int
    seed: int = 0
    max_steps: int | None = None
    xla: bool = False


def compute_metrics(
    predictions: Predictions,
    classes: Sequence[str],
    values: Mapping[str, np.ndarray],
    options: EvaluationOptions,
) -> dict:
    """Return all metrics as a dict for JSON: finite numbers, or None for what is undefined.

    The metrics of a class without images are undefined, and averages over classes skip it.

    Args:
        predictions: At least one.
        classes: Class names in label order.
        values: Metrics per image, name → float (n,), as an objective computes them. Their means
            come first in the result.
        options: What to compute.
    """
    table = ClassTable(predictions, len(classes))
    inputs = _MetricInputs(predictions, table, values, options.top_k)
    drawn = _bootstrap(inputs.compute, len(predictions), options)
    rows = table.rows(with_intervals=options.bootstrap_samples > 0)
    result = {
        **{name: _number(each[0]) for name, each in drawn.items()},
        "top_k": inputs.top_k,
        "intervals": {
            name: inputs.interval(name, each) for name, each in drawn.items() if len(each) > 1
        },
        "confidence": intervals.CONFIDENCE,
        "bootstrap_samples": options.bootstrap_samples,
        "absent": [name for name, row in zip(classes, rows, strict=True) if not row["images"]],
        "classes": dict(zip(classes, rows, strict=True)),
        "reliability": inputs.bins.to_json(),
    }
    if not predictions.multi_label:
        is_small = len(classes) <= _MAX_MATRIX_CLASSES
        name = "confusion_matrix" if is_small else "confusion_cells"
        count = confusion.confusion_matrix if is_small else confusion.confusion_cells
        result[name] = count(predictions.labels, predictions.classes, len(classes)).tolist()
    return result


def add_calibrated_metrics(
    metrics: dict,
    predictions: Predictions,
    validation: Predictions,
    losses: Callable[[np.ndarray, np.ndarray], np.ndarray],
    options: EvaluationOptions,
) -> dict:
    """Return metrics with the temperature, and loss and calibration error under it, added.

    The intervals take the temperature as given. If there is no best temperature, all are None.

    Args:
        metrics: The result of compute_metrics.
        predictions: Those that the metrics are of.
        validation: Those that the temperature is fitted on. If they are the same object as
            `predictions`, each half of the images is scaled with the temperature of the other half,
            so that no image is evaluated with a temperature fitted on it.
        losses: Function from scores (n, classes) and labels to the loss of each image, (n,).
        options: What to compute.
    """
    temperature = fit_temperature(validation.scores, validation.labels)
    is_same = validation is predictions
    divisors = _other_half_temperatures(predictions) if is_same else temperature
    result = {**metrics, "temperature": temperature, "cross_fitted": is_same}
    if temperature is None or divisors is None:
        return {**result, "calibrated_loss": None, "calibrated_ece": None}
    divisors = np.broadcast_to(np.float32(divisors), (len(predictions), 1))
    parts = []
    for rows in confusion.row_chunks(predictions.scores):
        scores = predictions.scores[rows] / divisors[rows]
        part = replace(predictions, scores=scores)
        bins = CalibrationBins(part.probabilities(), predictions.labels[rows])
        parts.append((bins, losses(scores, predictions.labels[rows])))
    bins = CalibrationBins.join([each for each, _ in parts])
    values = np.concatenate([each for _, each in parts])

    def compute(weights: np.ndarray) -> dict[str, np.ndarray]:
        loss = confusion.weighted_mean(values, weights)
        return {"calibrated_loss": loss, "calibrated_ece": bins.error(weights)}

    drawn = _bootstrap(compute, len(predictions), options)
    loss, ece = drawn["calibrated_loss"], drawn["calibrated_ece"]
    if options.bootstrap_samples:
        result["intervals"] = {
            **metrics["intervals"],
            "calibrated_loss": intervals.mean_interval(values, loss[1:]),
            "calibrated_ece": intervals.calibration_error_interval(float(ece[0]), ece[1:]),
        }
    return {**result, "calibrated_loss": _number(loss[0]), "calibrated_ece": _number(ece[0])}


def _other_half_temperatures(predictions: Predictions) -> np.ndarray | None:
    """Return each image's divisor, float (n, 1): the temperature of the half it is not in."""
    # Alternate between halves, because a split may be sorted by class.
    others = [slice(1, None, 2), slice(0, None, 2)]
    fitted = [fit_temperature(predictions.scores, predictions.labels, rows) for rows in others]
    half = np.arange(len(predictions)) % 2
    return None if None in fitted else np.array(fitted)[half, np.newaxis]


def _bootstrap(
    compute: _Compute, image_count: int, options: EvaluationOptions
) -> dict[str, np.ndarray]:
    """Return name → (1 + samples,): on the split, then in resamples."""
    weights = intervals.bootstrap_weights(image_count, options.bootstrap_samples, options.seed)
    found = list(map(compute, itertools.chain([intervals.unit_weights(image_count)], weights)))
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


class _MetricInputs:
    """What the metrics of any resample are computed from."""

    def __init__(
        self, predictions: Predictions, table: ClassTable, values: Mapping, top_k: int
    ) -> None:
        labels, scores = predictions.labels, predictions.scores
        self.top_k = min(top_k, scores.shape[1])
        self._table = table
        self._values = dict(values)
        if predictions.multi_label:
            self._values["exact_match"] = table.exact_matches()
        else:
            self._values["top_k_accuracy"] = confusion.in_top_k(scores, labels, self.top_k)
        self.bins = CalibrationBins.join(
            [
                CalibrationBins(predictions.probabilities(rows), labels[rows])
                for rows in confusion.row_chunks(scores)
            ]
        )

    def compute(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return name → (samples,) for weights (n, samples)."""
        means = [confusion.weighted_mean(each, weights) for each in self._values.values()]
        return {
            **dict(zip(self._values, means, strict=True)),
            **self._table.averages(weights),
            "ece": self.bins.error(weights),
        }

    def interval(self, name: str, drawn: np.ndarray) -> Interval:
        """Return the interval of a metric, (1 + samples,) as _bootstrap returns it, or None."""
        value, resampled = float(drawn[0]), drawn[1:]
        if name == "ece":
            return intervals.calibration_error_interval(value, resampled)
        if name not in self._values:
            return self._table.average_interval(name, value, resampled)
        images = self._values[name]
        # A loss is no share of images, even if all losses are 0.
        if name != "loss" and np.isin(images, (0, 1)).all():
            return intervals.share_interval(value, len(images))
        return intervals.mean_interval(images, resampled)


def _number(value: float) -> float | None:
    """Return a float for JSON: None if it is not finite."""
    return float(value) if np.isfinite(value) else None
