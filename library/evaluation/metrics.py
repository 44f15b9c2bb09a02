"""Predictions become measures, each with the interval that the bootstrap gives it."""

from dataclasses import dataclass

import numpy as np

from library.evaluation.bootstrap import CONFIDENCE, interval, interval_of_error, once, resamples
from library.evaluation.calibration import Bins, fit_temperature
from library.evaluation.confusion import (
    Counts,
    confusion_cells,
    confusion_matrix,
    is_in_top,
    macro,
    mean,
    one_hot,
    weighted,
)
from library.evaluation.roc import Ranking
from library.models.scores import to_probabilities

# With more classes, nearly all of the confusion matrix is zeros: its other cells are told.
_MATRIX_CLASSES = 300
OF_CLASSES = ("precision", "recall", "f1", "roc_auc", "pr_auc")


@dataclass(frozen=True)
class MetricOptions:
    """What to work out: the k of top-k, and how many resamples make an interval (0: none)."""

    top_k: int = 5
    bootstrap_samples: int = 1000
    seed: int = 0


def measure(predictions, classes, values, asked=MetricOptions()):
    """Return all measures of Predictions as a dict for JSON: finite numbers, None where undefined.

    `values` are numbers per image by name, float (n,), as Objective.metrics gives them; their
    means come first. `classes` are names. A class without images in the split has no measures, and
    takes no part in the means over classes.
    """
    parts = _Parts(predictions, len(classes), values, asked.top_k)
    point = {name: each[0] for name, each in parts.measures(once(len(predictions))).items()}
    drawn = _draw(parts.measures, len(predictions), asked)
    rows = [_row(number, point, drawn) for number in range(len(classes))]
    overall = [name for name, value in point.items() if np.ndim(value) == 0]
    result = {
        **{name: _number(point[name]) for name in overall},
        "top_k": parts.top_k,
        "intervals": {
            name: _interval(name, point[name], drawn[name]) for name in overall if name in drawn
        },
        "confidence": CONFIDENCE,
        "bootstrap_samples": asked.bootstrap_samples,
        "absent": [name for name, row in zip(classes, rows, strict=True) if not row["images"]],
        "classes": dict(zip(classes, rows, strict=True)),
        "reliability": parts.bins.rows(),
    }
    if not predictions.multi_label:
        pairs = predictions.labels, predictions.classes, len(classes)
        is_small = len(classes) <= _MATRIX_CLASSES
        name, count = (
            ("confusion_matrix", confusion_matrix)
            if is_small
            else ("confusion_cells", confusion_cells)
        )
        result[name] = count(*pairs).tolist()
    return result


def calibrate(result, predictions, validation, losses, asked=MetricOptions()):
    """Give `result` of `measure` with the temperature fitted on validation's Predictions added.

    And with what it would make of loss and calibration error. `losses` is a function of scores
    (n, classes) that gives the loss of each image. Where both Predictions are the same, each half
    of the images gets the temperature of the other half: no image is measured with what was fitted
    on it. All are None where no temperature can be told. The intervals take it as given.
    """
    temperature = fit_temperature(validation.scores, validation.labels)
    is_same = validation is predictions
    found = {"temperature": temperature, "cross_fitted": is_same}
    names = ("calibrated_loss", "calibrated_ece")
    divisors = _of_other_half(predictions) if is_same else temperature
    if temperature is None or divisors is None:
        return {**result, **found, **dict.fromkeys(names)}
    scores = predictions.scores / np.float32(divisors)
    probabilities = np.asarray(to_probabilities(scores, multi_label=predictions.multi_label))
    bins, values = Bins(probabilities, predictions.labels), losses(scores)

    def measures(weights):
        return dict(zip(names, (mean(values, weights), bins.error(weights)), strict=True))

    point = {name: each[0] for name, each in measures(once(len(predictions))).items()}
    drawn = _draw(measures, len(predictions), asked)
    intervals = {name: _interval(name, point[name], each) for name, each in drawn.items()}
    return {
        **result,
        **found,
        **{name: _number(each) for name, each in point.items()},
        "intervals": {**result["intervals"], **intervals},
    }


def _of_other_half(predictions):
    """Return float (n, 1), for each image the temperature of half it is not in; perhaps None."""
    # In turns: a split may be in the order of its classes.
    half = np.arange(len(predictions)) % 2
    fitted = [
        fit_temperature(predictions.scores[half != own], predictions.labels[half != own])
        for own in (0, 1)
    ]
    return None if None in fitted else np.array(fitted)[half, np.newaxis]


def _draw(measures, images, asked):
    """Return name → (samples, …) of the measures of all resamples; {} where none are asked for."""
    drawn = {}
    for weights in resamples(images, asked.bootstrap_samples, asked.seed):
        for name, each in measures(weights).items():
            drawn.setdefault(name, []).append(each)
    return {name: np.concatenate(each) for name, each in drawn.items()}


def _interval(name, value, drawn):
    is_error = name in ("ece", "calibrated_ece")
    return interval_of_error(float(value), drawn) if is_error else interval(drawn)


class _Parts:
    """What the measures of any resample are made of, worked out once."""

    def __init__(self, predictions, classes, values, top_k):
        labels, probabilities = predictions.labels, predictions.probabilities
        self.top_k = min(top_k, classes)
        self._values = dict(values)
        if predictions.multi_label:
            self._truth, self._guesses = labels > 0.5, predictions.scores > 0
            self._values["exact_match"] = (self._truth == self._guesses).all(1)
        else:
            self._truth = one_hot(labels, classes)
            self._guesses = one_hot(predictions.classes, classes)
            in_top = is_in_top(predictions.scores, labels, self.top_k)
            self._values["top_k_accuracy"] = in_top
        self._rankings = [Ranking(probabilities[:, n], self._truth[:, n]) for n in range(classes)]
        self.bins = Bins(probabilities, labels)

    def measures(self, weights):
        """Return name → (samples,) or (samples, classes) for weights (n, samples)."""
        found = {name: mean(each, weights) for name, each in self._values.items()}
        counts = Counts.of(self._truth, self._guesses, weights)
        areas = [each.areas(weights) for each in self._rankings]
        of_classes = {
            "precision": counts.precision,
            "recall": counts.recall,
            "f1": counts.f1,
            "roc_auc": np.stack([roc for roc, _ in areas], axis=1),
            "pr_auc": np.stack([pr for _, pr in areas], axis=1),
        }
        for name, each in of_classes.items():
            found[f"macro_{name}"] = macro(each)
            found[f"weighted_{name}"] = weighted(each, counts.support)
        found["ece"] = self.bins.error(weights)
        found |= {f"class_{name}": each for name, each in of_classes.items()}
        found["class_images"], found["class_guesses"] = counts.support, counts.guessed
        return found


def _row(number, point, drawn):
    row = {
        "images": round(point["class_images"][number]),
        "guesses": round(point["class_guesses"][number]),
        **{name: _number(point[f"class_{name}"][number]) for name in OF_CLASSES},
    }
    if drawn:
        row["intervals"] = {
            name: interval(drawn[f"class_{name}"][:, number]) for name in OF_CLASSES
        }
    return row


def _number(value):
    """Return a float that JSON knows: None for what is not defined."""
    return float(value) if np.isfinite(value) else None
