"""One network judged on one split: predictions, measures, and the images it got most wrong."""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from library.errors import DataError, DivergedError
from library.evaluation.metrics import MetricOptions, calibrate, measure
from library.evaluation.predictions import Predictions, predict_batches
from library.messages import counted


@dataclass(frozen=True)
class EvaluationResult:
    """What evaluation found. `losses` are float32 (n,); `measures` is a dict for JSON."""

    predictions: Predictions
    losses: np.ndarray
    measures: dict

    def worst_mistakes(self, most):
        """Return the rows of the wrong guesses with the highest losses, worst first: int64."""
        found = self.predictions
        if found.multi_label:
            wrong = ((found.scores > 0) != (found.labels > 0.5)).any(1)
        else:
            wrong = found.classes != found.labels
        rows = np.flatnonzero(wrong)
        return rows[np.argsort(-self.losses[rows], kind="stable")][:most]


def evaluate(network, classes, inputs, objective, *, validation=None, asked=None, **how):
    """Return the Judgement of a network on `inputs`, as EvaluationInputs in project/inputs.py.

    `objective` gives the measures of each image, as Objective in project/objective.py; `asked` is
    Asked. The temperature is fitted on `validation`, other such inputs, or the same (see
    `calibrate`); without any there is none. `how` is for predict_batches. Raises DataError where
    there are no images, DivergedError where the scores are no numbers.
    """
    found = predict_batches(network, inputs.named_batches(), **how)
    if not len(found):
        raise DataError("the split to evaluate on is empty: convert some images")
    _check_finite(found.scores)
    values = _values(objective, found.labels, found.scores)
    asked = asked or MetricOptions()
    measures = measure(found, classes, values, asked)
    if validation is not None:
        is_same = validation is inputs
        other = found if is_same else predict_batches(network, validation.named_batches(), **how)
        measures = calibrate(
            measures,
            found,
            other,
            lambda scores: _values(objective, found.labels, scores)["loss"],
            asked,
        )
    return EvaluationResult(found, values["loss"], measures)


def read_images(inputs, rows):
    """Return pixels of some images of a split, by row: a list of uint8 (height, width, channels).

    Reads as far as the last one, and decodes these alone.
    """
    if not len(rows):
        return []
    source, wanted = inputs.source, tf.constant(np.asarray(rows), tf.int64)
    keys = source.keys(None, replace(inputs.options, deterministic=True)).enumerate()
    chosen = keys.filter(lambda row, key: tf.reduce_any(tf.equal(row, wanted))).take(len(rows))
    images = chosen.map(lambda row, key: (row, source.load(key, inputs.image_format)[0]))
    found = {int(row): image for row, image in images.as_numpy_iterator()}
    return [found[int(row)] for row in rows]


def _check_finite(scores):
    bad = np.count_nonzero(~np.isfinite(scores).all(1))
    if bad:
        raise DivergedError(
            f"the network's scores of {bad:,} of {counted(len(scores), 'image')} are no numbers: "
            "it had diverged; evaluate an earlier --checkpoint"
        )


def _values(objective, labels, scores):
    measures = objective.metrics(tf.constant(labels), tf.constant(scores))
    return {name: each.numpy() for name, each in measures.items()}
