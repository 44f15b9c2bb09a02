"""A row per image: its label, the prediction, and how wrong that is, as a CSV file.

For images of one class each, the prediction is the most probable class. A multi-label image has any
number of labels, and of predictions: the classes above 0.5. They are joined by `|`, and so are
their probabilities and ranks, in the same order.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from library.evaluation.confusion import Rows, row_chunks
from library.evaluation.predictions import Predictions
from library.files import new_file

# `probability` is that of the prediction. `label_rank` counts from 1, the most probable class.
COLUMNS = ("file", "label", "prediction", "probability", "label_probability", "loss", "label_rank")
# What the names of such files end with.
IMAGE_TABLE = ".images.csv"
# Of a probability that float32 rounds to 0, the loss would be infinite.
_MIN_PROBABILITY = np.finfo(np.float32).tiny

_Columns = Mapping[str, Sequence[Any] | np.ndarray]


def write_image_table(
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
    labels: np.ndarray,
    probabilities: Rows,
    extra_columns: _Columns | None = None,
) -> None:
    """Write the table, whole or not at all.

    Args:
        path: The file to write.
        names: File names of n images.
        classes: Class names in label order.
        labels: int64 (n,), or multi-hot (n, classes) if multi-label.
        probabilities: Float (n, classes), in memory or not.
        extra_columns: More columns, name → n values. They may replace `loss`, which is otherwise
            the cross-entropy of the probabilities; if multi-label, its mean over classes.
    """
    extra = extra_columns or {}
    describe = _describe_multi_label if labels.ndim == 2 else _describe_labels
    with new_file(path) as binary:
        file = io.TextIOWrapper(binary, "utf-8", "surrogateescape", newline="")
        # With the line ends of RFC 4180: with others, "\r" in a name would not be quoted.
        writer = csv.writer(file)
        writer.writerow(dict.fromkeys((*COLUMNS, *extra)))
        for rows in row_chunks(probabilities):
            described = describe(labels[rows], probabilities[rows], np.array(classes, object))
            more = {name: _to_text(np.asarray(values[rows])) for name, values in extra.items()}
            columns = {"file": names[rows], **described, **more}
            writer.writerows(zip(*columns.values(), strict=True))
        file.detach()


def write_prediction_table(
    path: Path, predictions: Predictions, classes: Sequence[str], losses: np.ndarray
) -> None:
    """Write the table of an evaluation.

    Args:
        path: The file to write.
        predictions: Those of n images.
        classes: Class names in label order.
        losses: The loss of each image, float (n,).
    """
    labels, probabilities = predictions.labels, _Probabilities(predictions)
    names = predictions.names
    write_image_table(path, names, classes, labels, probabilities, {"loss": losses})


@dataclass(frozen=True)
class _Probabilities:
    """The probabilities of all images, computed when some are read."""

    predictions: Predictions

    @property
    def shape(self) -> tuple[int, ...]:
        return self.predictions.scores.shape

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.predictions.probabilities(rows)


def _describe_labels(
    labels: np.ndarray, probabilities: np.ndarray, classes: np.ndarray
) -> dict[str, Any]:
    """Return the columns of some images of one class each."""
    predicted = probabilities.argmax(1)
    highest, own = (
        np.take_along_axis(probabilities, each[:, np.newaxis], 1) for each in (predicted, labels)
    )
    # Of equal probabilities the first class's counts as higher, as in argmax.
    is_before = np.arange(len(classes)) < labels[:, np.newaxis]
    ranks = 1 + ((probabilities > own) | ((probabilities == own) & is_before)).sum(1)
    # Adding 0 makes 0 of the -0 that is the loss of a probability of 1.
    losses = 0 - np.log(np.maximum(own[:, 0], _MIN_PROBABILITY))
    return {
        "label": classes[labels],
        "prediction": classes[predicted],
        "probability": _to_text(highest[:, 0]),
        "label_probability": _to_text(own[:, 0]),
        "loss": _to_text(losses),
        "label_rank": _to_text(ranks),
    }


def _describe_multi_label(
    labels: np.ndarray, probabilities: np.ndarray, classes: np.ndarray
) -> dict[str, Any]:
    """Return the columns of some multi-label images."""
    truth, predicted = labels > 0.5, probabilities > 0.5
    # The place of each class in the order of decreasing probabilities.
    ranks = np.argsort(np.argsort(-probabilities, 1, kind="stable"), 1) + 1
    correct = np.where(truth, probabilities, 1 - probabilities)
    losses = 0 - np.log(np.maximum(correct, _MIN_PROBABILITY)).mean(1)
    return {
        "label": _join(classes, truth),
        "prediction": _join(classes, predicted),
        "probability": _join(probabilities, predicted),
        "label_probability": _join(probabilities, truth),
        "loss": _to_text(losses),
        "label_rank": _join(ranks, truth),
    }


def _join(values: np.ndarray, chosen: np.ndarray) -> list[str]:
    """Return the chosen values of each row, joined: values (n, classes), or (classes,) for all."""
    rows, places = np.nonzero(chosen)
    cells = values[places] if values.ndim == 1 else _to_text(values[rows, places])
    parts = np.split(cells, np.cumsum(np.bincount(rows, minlength=len(chosen)))[:-1])
    return ["|".join(each) for each in parts]


def _to_text(values: np.ndarray) -> np.ndarray:
    """Return the shortest text of each number from which it can be read back exactly."""
    return values.astype(str).astype(object)
