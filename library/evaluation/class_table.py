"""The metrics of each class, their intervals, and their averages over classes."""

from collections.abc import Iterator

import numpy as np

from library.evaluation import confusion, intervals
from library.evaluation.predictions import Predictions, late_bar
from library.evaluation.roc import Area, class_areas
from library.evaluation.table import CLASS_METRICS

# With more classes, only so many have intervals.
MAX_INTERVAL_CLASSES = 200
_AREAS = ("roc_auc", "pr_auc")
# Metrics of a class that are means of a number per image of it.
_OWN_MEANS = ("recall", *_AREAS)
_AVERAGES = ("macro", "weighted")
_SLOPED = [(average, name) for average in _AVERAGES for name in _AREAS]
# Probabilities of some classes at a time, so that those of many classes need little memory.
_MAX_PROBABILITIES = 16_000_000


class ClassTable:
    """Metrics by class; each class is ranked once, for its own metrics and for all resamples."""

    def __init__(self, predictions: Predictions, class_count: int) -> None:
        """Count and rank the images.

        Args:
            predictions: At least one.
            class_count: Number of classes.
        """
        self._image_count = len(predictions)
        labels = predictions.labels
        if predictions.multi_label:
            self._truth = confusion.ClassPairs.above(0.5, labels)
            self._predicted = confusion.ClassPairs.above(0, predictions.scores)
        else:
            self._truth = confusion.ClassPairs.of_labels(labels, class_count)
            self._predicted = confusion.ClassPairs.of_labels(predictions.classes, class_count)
        self._is_found = found = self._truth.are_in(self._predicted, self._image_count)
        weights = intervals.unit_weights(self._image_count)
        counted = confusion.class_metrics(self._truth, self._predicted, found, weights)
        self._counted = {name: each[0] for name, each in counted.items()}
        self._images = self._counted["images"]
        self._rarer = np.minimum(self._images, self._image_count - self._images)
        # The areas: of each class, what resamples average, and the slopes of the averages.
        self._areas = {name: np.full(class_count, np.nan) for name in _AREAS}
        self._variances = {name: np.full(class_count, np.nan) for name in _AREAS}
        self._own = {name: np.zeros(len(self._truth.rows)) for name in _OWN_MEANS}
        self._slopes = np.zeros((len(_SLOPED), self._image_count))
        for label, areas in late_bar(
            self._ranked(predictions), "metrics", " classes", len(np.unique(self._truth.classes))
        ):
            own = self._truth.of_class(label)
            self._own["recall"][own] = _spread(found[own])
            for name, area in zip(_AREAS, areas, strict=True):
                self._own[name][own] = _spread(area.own)
                self._add_area(label, name, area)
        for slopes, (average, name) in zip(self._slopes, _SLOPED, strict=True):
            weights = self._class_weights(average)[~np.isnan(self._areas[name])]
            slopes /= max(weights.sum(), 1)

    def rows(self, *, with_intervals: bool) -> list[dict]:
        """Return a dict of each class: images, guesses, metrics and, if asked for, intervals.

        Of more than MAX_INTERVAL_CLASSES, only those with the lowest F1 have intervals.
        """
        columns = {**self._counted, **self._areas}
        bounds = {name: self._interval(name, columns[name]) for name in CLASS_METRICS}
        # NaN, of a class without images, comes last.
        worst = np.argsort(columns["f1"], kind="stable")[:MAX_INTERVAL_CLASSES]
        shown = {*worst.tolist()} if with_intervals else {}
        rows = []
        for label in range(len(self._images)):
            row = {
                "images": round(self._images[label]),
                "guesses": round(self._counted["guesses"][label]),
                **{name: _number(columns[name][label]) for name in CLASS_METRICS},
            }
            if label in shown:
                row["intervals"] = {
                    name: None if row[name] is None else (float(low[label]), float(high[label]))
                    for name, (low, high) in bounds.items()
                }
            rows.append(row)
        return rows

    def averages(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return the averages over classes, name → (samples,), for weights (n, samples)."""
        counted = confusion.class_metrics(self._truth, self._predicted, self._is_found, weights)
        images = counted["images"]
        for name, own in self._own.items():
            counted[name] = confusion.ratio(self._truth.sums(weights, own), images, np.nan)
        sums = confusion.weighted_sum(self._slopes, weights - 1)
        changes = dict(zip(_SLOPED, sums, strict=True))
        found = {}
        for name in CLASS_METRICS:
            each = counted[name]
            for average in _AVERAGES:
                class_weights = images if average == "weighted" else np.ones_like(each)
                values = confusion.class_average(each, class_weights)
                found[f"{average}_{name}"] = values + changes.get((average, name), 0)
        return found

    def average_interval(
        self, name: str, value: float, resampled: np.ndarray
    ) -> tuple[float, float] | None:
        """Return the interval of an average over classes, or None if it is NaN.

        Args:
            name: As `averages` names it.
            value: On the split itself.
            resampled: In each resample, float (samples,); NaN where it is undefined.
        """
        average, _, metric = name.partition("_")
        images = self._rarer if metric in _AREAS else self._images
        weights = np.where(images > 0, self._class_weights(average), 0.0)
        # Of how many images such an average is the mean, by its classes' weights (Kish 1965).
        least = weights.sum() ** 2 / max((weights**2 / np.maximum(images, 1)).sum(), 1e-9)
        defined = resampled[~np.isnan(resampled)]
        variance = defined.var() if len(defined) else 0.0
        return intervals.share_interval(
            value, float(intervals.effective_count(value, variance, least))
        )

    def exact_matches(self) -> np.ndarray:
        """Return whether exactly the true classes of each image were predicted: bool (n,)."""
        rows = self._truth.rows, self._truth.rows[self._is_found], self._predicted.rows
        true, found, predicted = (np.bincount(each, minlength=self._image_count) for each in rows)
        return (true == found) & (found == predicted)

    def _ranked(self, predictions: Predictions) -> Iterator[tuple[int, tuple[Area, Area]]]:
        """Yield (class, its areas) for each class that has images."""
        class_count = len(self._images)
        size = min(max(1, _MAX_PROBABILITIES // self._image_count), class_count)
        buffer = np.empty((size, self._image_count), np.float32)
        for start in range(0, class_count, size):
            columns = buffer[: class_count - start]
            for rows in confusion.row_chunks(predictions.scores):
                columns[:, rows] = predictions.probabilities(rows)[:, start : start + size].T
            for label, probabilities in enumerate(columns, start):
                own = self._truth.rows[self._truth.of_class(label)]
                if len(own):
                    truth = np.zeros(self._image_count, bool)
                    truth[own] = True
                    yield label, class_areas(probabilities, truth)

    def _add_area(self, label: int, name: str, area: Area) -> None:
        mean = area.own.mean()
        self._areas[name][label] = mean
        self._variances[name][label] = area.variance
        if not np.isnan(mean):
            for average in _AVERAGES:
                slopes = self._slopes[_SLOPED.index((average, name))]
                slopes += area.slopes * self._class_weights(average)[label]

    def _class_weights(self, average: str) -> np.ndarray:
        return self._images if average == "weighted" else np.ones_like(self._images)

    def _interval(self, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (low, high) of a metric of each class."""
        images, guesses = self._images, self._counted["guesses"]
        if name == "f1":
            correct = np.nan_to_num(self._counted["recall"]) * images
            return intervals.f1_interval(values, images + guesses - correct)
        if name in _AREAS:
            # The variance is at most that of a share of the rarer images (Birnbaum and Klose 1957,
            # doi 10.1214/aoms/1177706710).
            count = intervals.effective_count(values, self._variances[name], self._rarer)
            return intervals.wilson_interval(values, count)
        return intervals.wilson_interval(values, guesses if name == "precision" else images)


def _spread(numbers: np.ndarray) -> np.ndarray:
    """Return numbers with the same mean, further from it.

    Drawing from few images varies too little; this restores the variance (Efron 1982, 5.3).
    """
    count, mean = len(numbers), numbers.mean()
    return mean + (numbers - mean) * (count / max(count - 1, 1)) ** 0.5


def _number(value: float) -> float | None:
    """Return a float for JSON: None if it is not finite."""
    return float(value) if np.isfinite(value) else None
