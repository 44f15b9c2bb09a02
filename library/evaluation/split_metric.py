"""Metrics of a whole split that may select the best snapshot, such as macro F1.

They are not means over images: training passes what the network returns for all images of an
evaluation. The values are those that `evaluate` reports; `balanced_accuracy` is its `macro_recall`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from library.errors import DataError, SettingsError
from library.evaluation.class_table import ClassTable
from library.evaluation.confusion import class_average, class_shares
from library.evaluation.intervals import unit_weights
from library.evaluation.predictions import Predictions, gather_scores
from library.inputs.examples import Split
from library.messages import ChoiceError, did_you_mean, listed
from library.training.parts import SplitMetric

# Macro averages → the metric of a class that they average.
_COUNTED = {"balanced_accuracy": "recall", "macro_f1": "f1"}
_AREAS = ("macro_pr_auc", "macro_roc_auc")
# Metrics of one class, whose name follows a colon.
_OF_CLASS = ("precision", "recall")
# As messages list them.
SPLIT_METRICS = (*_COUNTED, *_AREAS, *(f"{each}:<class>" for each in _OF_CLASS))

# Labels and scores of a batch: see Predictions.
Batch = tuple[np.ndarray, np.ndarray]


def is_split_metric(name: str) -> bool:
    """Return whether a metric, by name, is one of a whole split: `macro_f1`, `recall:cat`."""
    kind, is_of_class, _ = name.partition(":")
    return kind in _OF_CLASS if is_of_class else name in SPLIT_METRICS


def make_split_metric(name: str, split: Split) -> SplitMetric:
    """Return the metric called `name`.

    Args:
        name: As `is_split_metric` knows it.
        split: The split that it will be computed on.

    Raises:
        SettingsError: The class is unknown, or the metric is for images of one class each.
        DataError: It is undefined on the split.
    """
    kind, is_of_class, class_name = name.partition(":")
    classes = split.classes
    if is_of_class and class_name not in classes:
        hint = did_you_mean(class_name, classes)
        raise ChoiceError(f"best_metric {name}: unknown class{hint} (known: {listed(classes)})")
    if name == "balanced_accuracy" and split.is_multi_label:
        raise SettingsError(
            "best_metric balanced_accuracy is for images of one class each: use macro_f1"
        )
    # ROC AUC compares the images of a class with others.
    most = split.examples - (name == "macro_roc_auc")
    counts = dict(zip(classes, split.class_counts, strict=True))
    if not any(0 < counts[each] <= most for each in ([class_name] if is_of_class else classes)):
        lacking = "of that class" if is_of_class else "of different classes"
        raise DataError(
            f"best_metric {name} is undefined: the {split.name} split has no images {lacking}"
        )
    if name in _AREAS:
        return AreaMetric(name, len(classes))
    label = classes.index(class_name) if is_of_class else None
    return CountedMetric(name, len(classes), _COUNTED.get(name, kind), label)


@dataclass(frozen=True)
class CountedMetric:
    """A metric made of counts of images per class, all that it holds in memory.

    Attributes:
        name: Its name.
        class_count: Number of classes.
        share: The metric of a class: precision, recall or f1.
        label: The class; None: the mean over all classes that have images.
    """

    name: str
    class_count: int
    share: str
    label: int | None = None

    def compute(self, batches: Iterable[Batch]) -> float:
        """Return the metric over batches of (labels, scores); NaN if it is undefined."""
        counts = np.zeros((3, self.class_count))
        for labels, scores in batches:
            counts += self._count(labels, scores)
        values = class_shares(*counts)[self.share]
        if self.label is not None:
            return float(values[self.label])
        return float(class_average(values[np.newaxis], np.ones((1, self.class_count)))[0])

    def _count(self, labels: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:
        """Return the correct, true and predicted images of each class."""
        if labels.ndim == 2:
            truth, predicted = labels > 0.5, scores > 0
            return [each.sum(0) for each in (truth & predicted, truth, predicted)]
        guesses = scores.argmax(1)
        found = labels[guesses == labels], labels, guesses
        return [np.bincount(each, minlength=self.class_count) for each in found]


@dataclass(frozen=True)
class AreaMetric:
    """The mean over classes of ROC AUC or PR AUC, from the scores of all images."""

    name: str
    class_count: int

    def compute(self, batches: Iterable[Batch]) -> float:
        """Return the metric over batches of (labels, scores); NaN if it is undefined."""
        all_labels: list[np.ndarray] = []

        def score_batches() -> Iterator[np.ndarray]:
            yield np.zeros((0, self.class_count), np.float32)
            for labels, scores in batches:
                all_labels.append(labels > 0.5 if labels.ndim == 2 else labels)
                yield scores

        scores = gather_scores(score_batches())
        if not len(scores):
            return float("nan")
        labels = np.concatenate(all_labels)
        predictions = Predictions(scores, labels, (), labels.ndim == 2)
        table = ClassTable(predictions, self.class_count)
        return float(table.averages(unit_weights(len(predictions)))[self.name][0])
