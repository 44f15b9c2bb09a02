"""Images of a report: the worst mistakes, as pictures and in a table, and some correct ones."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from library.evaluation.predictions import Predictions
from library.inputs.interfaces import EvaluationInputs
from library.reporting.charts import make_thumbnail

# The number of images, and of rows, bounds the size of the page.
MAX_MISTAKES = 48
MAX_CORRECT = 16
MAX_ROWS = 1000
# Between the classes of an image, in a cell of the table.
SEPARATOR = "|"
_NONE = "none"


def worst_mistakes(
    predictions: Predictions, losses: np.ndarray, count: int = MAX_MISTAKES
) -> np.ndarray:
    """Return the rows of the wrong predictions with the highest losses, worst first: int64."""
    rows = np.flatnonzero(~predictions.correct)
    return rows[np.argsort(-losses[rows], kind="stable")][:count]


def sample_correct(predictions: Predictions, count: int = MAX_CORRECT) -> np.ndarray:
    """Return the rows of some correct predictions, evenly spaced over the split: int64."""
    rows = np.flatnonzero(predictions.correct)
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


def read_images(inputs: EvaluationInputs, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Return the pixels of some images of a split, by row: uint8 (height, width, channels) each.

    Reads the split as far as the last one, and decodes only these.
    """
    if not len(rows):
        return []
    source: Any = inputs.source
    wanted = tf.constant(np.asarray(rows), tf.int64)
    keys = source.keys().enumerate()
    as_it_is = tf.autograph.experimental.do_not_convert
    chosen = keys.filter(as_it_is(lambda row, key: tf.reduce_any(tf.equal(row, wanted))))
    images = chosen.take(len(rows)).map(
        as_it_is(lambda row, key: (row, source.load(key, inputs.image_format)[0]))
    )
    found = {int(row): image for row, image in images.as_numpy_iterator()}
    return [found[int(row)] for row in rows]


def make_cards(
    predictions: Predictions,
    classes: Sequence[str],
    rows: np.ndarray,
    images: Sequence[np.ndarray],
) -> Iterator[dict]:
    """Yield what the page shows of some images.

    Args:
        predictions: Those of the split.
        classes: Class names in label order.
        rows: The images' rows in the split, int64 (m,).
        images: Their pixels, uint8 (height, width, 1 or 3) each.
    """
    probabilities = predictions.probabilities(rows)
    for row, image, own in zip(rows, images, probabilities, strict=True):
        predicted, true = (
            ", ".join(f"{classes[n]} {100 * own[n]:.1f} %" for n in each) or _NONE
            for each in _classes_of(predictions, row)
        )
        yield {
            "thumbnail": make_thumbnail(image),
            "is_correct": bool(predictions.correct[row]),
            "predicted": predicted,
            "true": true,
            "name": predictions.names[row],
        }


def make_mistake_table(
    predictions: Predictions,
    losses: np.ndarray,
    classes: Sequence[str],
    folds: np.ndarray | None = None,
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heading and the rows of the table of mistakes, worst first.

    Args:
        predictions: Those of n images.
        losses: The loss of each image, float (n,).
        classes: Class names in label order.
        folds: The fold of each image, int (n,), for another column.
    """
    rows = worst_mistakes(predictions, losses, MAX_ROWS)
    pairs = [_classes_of(predictions, row) for row in rows]
    predicted, true = (
        [SEPARATOR.join(classes[n] for n in pair[which]) or _NONE for pair in pairs]
        for which in (0, 1)
    )
    names = [predictions.names[row] for row in rows]
    columns = {"file": names, "true": true, "predicted": predicted}
    if not predictions.multi_label:
        probabilities = predictions.probabilities(rows)
        for name, chosen in (("true", predictions.labels), ("predicted", predictions.classes)):
            own = np.take_along_axis(probabilities, chosen[rows, np.newaxis], 1)[:, 0]
            columns[f"probability of {name}"] = [f"{each:.4f}" for each in own.tolist()]
    if folds is not None:
        columns["fold"] = [str(each) for each in folds[rows].tolist()]
    columns["loss"] = [f"{each:.4f}" for each in losses[rows].tolist()]
    return (*columns,), [*zip(*columns.values(), strict=True)]


def _classes_of(predictions: Predictions, row: int) -> tuple[list[int], list[int]]:
    """Return the predicted and the true classes of an image."""
    if predictions.multi_label:
        predicted, true = predictions.scores[row] > 0, predictions.labels[row] > 0.5
        return np.flatnonzero(predicted).tolist(), np.flatnonzero(true).tolist()
    return [int(predictions.classes[row])], [int(predictions.labels[row])]
