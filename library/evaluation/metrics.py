"""Metrics of predictions, each with a bootstrap confidence interval, as a dict for JSON."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from library.evaluation import bootstrap, confusion
from library.evaluation.calibration import CalibrationBins, fit_temperature
from library.evaluation.predictions import Predictions
from library.evaluation.roc import Ranking
from library.evaluation.table import CLASS_METRICS, Interval
from library.models.scores import to_probabilities

# With more classes nearly all cells of the confusion matrix are 0, so only the others are listed.
_MAX_MATRIX_CLASSES = 300

# Weights (n, samples) → name → (samples,) or (samples, classes).
_Compute = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class EvaluationOptions:
    """What to compute, and on how much of a split.

    Attributes:
        top_k: The k of top-k accuracy.
        bootstrap_samples: Resamples behind each confidence interval; 0: no intervals.
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
    inputs = _MetricInputs(predictions, len(classes), values, options.top_k)
    drawn = _bootstrap(inputs.compute, len(predictions), options)
    rows = [_class_row(label, drawn) for label in range(len(classes))]
    overall = {name: each for name, each in drawn.items() if each.ndim == 1}
    result = {
        **{name: _number(each[0]) for name, each in overall.items()},
        "top_k": inputs.top_k,
        "intervals": _intervals(overall),
        "confidence": bootstrap.CONFIDENCE,
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
    losses: Callable[[np.ndarray], np.ndarray],
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
        losses: Function from scores (n, classes) to the loss of each image, (n,).
        options: What to compute.
    """
    temperature = fit_temperature(validation.scores, validation.labels)
    is_same = validation is predictions
    divisors = _other_half_temperatures(predictions) if is_same else temperature
    result = {**metrics, "temperature": temperature, "cross_fitted": is_same}
    if temperature is None or divisors is None:
        return {**result, "calibrated_loss": None, "calibrated_ece": None}
    scores = predictions.scores / np.float32(divisors)
    probabilities = np.asarray(to_probabilities(scores, multi_label=predictions.multi_label))
    bins, values = CalibrationBins(probabilities, predictions.labels), losses(scores)

    def compute(weights: np.ndarray) -> dict[str, np.ndarray]:
        loss = confusion.weighted_mean(values, weights)
        return {"calibrated_loss": loss, "calibrated_ece": bins.error(weights)}

    drawn = _bootstrap(compute, len(predictions), options)
    return {
        **result,
        **{name: _number(each[0]) for name, each in drawn.items()},
        "intervals": {**metrics["intervals"], **_intervals(drawn)},
    }


def _other_half_temperatures(predictions: Predictions) -> np.ndarray | None:
    """Return each image's divisor, float (n, 1): the temperature of the half it is not in."""
    # Alternate between halves, because a split may be sorted by class.
    half = np.arange(len(predictions)) % 2
    others = [half != own for own in (0, 1)]
    fitted = [fit_temperature(predictions.scores[n], predictions.labels[n]) for n in others]
    return None if None in fitted else np.array(fitted)[half, np.newaxis]


def _bootstrap(
    compute: _Compute, image_count: int, options: EvaluationOptions
) -> dict[str, np.ndarray]:
    """Return name → (1 + samples,) or (1 + samples, classes): on the split, then in resamples."""
    weights = bootstrap.bootstrap_weights(image_count, options.bootstrap_samples, options.seed)
    found = list(map(compute, itertools.chain([bootstrap.unit_weights(image_count)], weights)))
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _intervals(drawn: dict[str, np.ndarray]) -> dict[str, Interval]:
    """Return an interval for each name → (1 + samples,); {} if there are no resamples."""
    return {
        name: bootstrap.calibration_error_interval(float(each[0]), each[1:])
        if name in ("ece", "calibrated_ece")
        else bootstrap.percentile_interval(each[1:])
        for name, each in drawn.items()
        if len(each) > 1
    }


class _MetricInputs:
    """What the metrics of any resample are computed from."""

    def __init__(self, predictions: Predictions, count: int, values: Mapping, top_k: int) -> None:
        labels, probabilities = predictions.labels, predictions.probabilities
        self.top_k = min(top_k, count)
        self._values = dict(values)
        if predictions.multi_label:
            self._truth, self._predicted = labels > 0.5, predictions.scores > 0
            self._values["exact_match"] = (self._truth == self._predicted).all(1)
        else:
            self._truth = confusion.one_hot(labels, count)
            self._predicted = confusion.one_hot(predictions.classes, count)
            in_top = confusion.in_top_k(predictions.scores, labels, self.top_k)
            self._values["top_k_accuracy"] = in_top
        self._rankings = list(map(Ranking, probabilities.T, self._truth.T))
        self.bins = CalibrationBins(probabilities, labels)

    def compute(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return name → (samples,) or (samples, classes) for weights (n, samples)."""
        found = {
            name: confusion.weighted_mean(each, weights) for name, each in self._values.items()
        }
        roc, pr = np.stack([each.areas(weights) for each in self._rankings], axis=-1)
        counted = confusion.class_metrics(self._truth, self._predicted, weights)
        of_classes = {**counted, "roc_auc": roc, "pr_auc": pr}
        for name in CLASS_METRICS:
            each = of_classes[name]
            found[f"macro_{name}"] = confusion.class_average(each, np.ones_like(each))
            found[f"weighted_{name}"] = confusion.class_average(each, counted["images"])
        found["ece"] = self.bins.error(weights)
        found |= {f"class_{name}": each for name, each in of_classes.items()}
        return found


def _class_row(label: int, drawn: dict[str, np.ndarray]) -> dict:
    own = {name: drawn[f"class_{name}"][:, label] for name in CLASS_METRICS}
    row = {
        "images": round(drawn["class_images"][0, label]),
        "guesses": round(drawn["class_guesses"][0, label]),
        **{name: _number(each[0]) for name, each in own.items()},
    }
    intervals = _intervals(own)
    return {**row, "intervals": intervals} if intervals else row


def _number(value: float) -> float | None:
    """Return a float for JSON: None if it is not finite."""
    return float(value) if np.isfinite(value) else None
