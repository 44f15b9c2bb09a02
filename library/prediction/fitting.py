"""What is fitted to the validation split, on request: a temperature, and a threshold."""

from typing import NamedTuple

import numpy as np

from library.errors import SettingsError
from library.evaluation.calibration import fit_temperature
from library.evaluation.predictions import predict_batches
from library.evaluation.probabilities import to_probabilities
from library.inputs.damage import naming_damage
from library.prediction.combining import combine
from library.prediction.threshold import fit_threshold
from library.training.snapshots import Snapshot


class Fitted(NamedTuple):
    """A Snapshot whose scores are divided by the temperature, and the threshold of its answers.

    Either is None where it was not asked for, or does not fit.
    """

    snapshot: Snapshot
    temperature: float | None = None
    threshold: float | None = None


def fit(snapshot, inputs, report, *, calibrate=False, precision=None, xla=False):
    """Give the Fitted: the temperature with `calibrate`, the threshold for a `precision`.

    `inputs` are the validation split, as EvaluationInputs in project/inputs.py. Says to `report`
    what came of it. Raises UserError.
    """
    with naming_damage(inputs):
        found = predict_batches(snapshot.network, inputs.named_batches(), xla=xla)
    temperature = threshold = None
    if calibrate:
        temperature = fit_temperature(found.scores, found.labels)
        report(f"temperature {temperature:.4f}" if temperature else "no temperature fits")
    if precision is not None:
        if found.several:
            raise SettingsError("threshold_precision is for one class an image: use threshold")
        probabilities = np.asarray(to_probabilities(found.scores, temperature or 1.0))
        fitted = fit_threshold(probabilities, found.labels, precision)
        report(fitted.describe())
        threshold = fitted.probability
    return Fitted(combine([snapshot], [temperature or 1.0]), temperature, threshold)
