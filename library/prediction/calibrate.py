"""What is fitted to the validation split, on request: a temperature, and a threshold."""

from typing import NamedTuple

import numpy as np

from library.errors import SettingsError, UserError
from library.evaluation.calibration import fit_temperature
from library.evaluation.predictions import predict_batches
from library.inputs.corruption import explain_read_errors
from library.messages import counted
from library.models.scores import to_probabilities
from library.prediction.ensemble import combine
from library.saving.snapshots import Snapshot


class Fitted(NamedTuple):
    """A Snapshot whose scores are divided by the temperature, and the threshold of its answers.

    Either is None where it was not asked for, or does not fit.
    """

    snapshot: Snapshot
    temperature: float | None = None
    threshold: float | None = None


def fit(snapshot, inputs, report, *, calibrate=False, precision=None, xla=False):
    """Return the Fitted: the temperature with `calibrate`, the threshold for a `precision`.

    `inputs` are the validation split, as EvaluationInputs in project/inputs.py. Says to `report`
    what came of it. Raises UserError.
    """
    with explain_read_errors(inputs):
        found = predict_batches(snapshot.network, inputs.named_batches(), xla=xla)
    temperature = threshold = None
    if calibrate:
        temperature = fit_temperature(found.scores, found.labels)
        report(f"temperature {temperature:.4f}" if temperature else "no temperature fits")
    if precision is not None:
        if found.multi_label:
            raise SettingsError("threshold_precision is for one class an image: use threshold")
        probabilities = np.asarray(to_probabilities(found.scores, temperature or 1.0))
        fitted = fit_threshold(probabilities, found.labels, precision)
        report(fitted.describe())
        threshold = fitted.probability
    return Fitted(combine([snapshot], [temperature or 1.0]), temperature, threshold)


UNKNOWN = "unknown"


def check_names(classes):
    """Raise SettingsError where a class has the very name of the answer below a threshold."""
    if UNKNOWN in classes:
        raise SettingsError(
            f"the class {UNKNOWN!r} could not be told from the answer below a threshold: leave out "
            "threshold and threshold_precision, or rename the class"
        )


def choose_answer(probabilities, classes, threshold=None, multi_label=False):
    """Return the answer to the probabilities (classes,) of one image: a class, or UNKNOWN below.

    Where `several` classes may be right at once: a list of all from the threshold on, 0.5 if None.
    """
    if multi_label:
        least = 0.5 if threshold is None else threshold
        return [classes[each] for each in (probabilities >= least).nonzero()[0]]
    if threshold is not None and probabilities.max() < threshold:
        return UNKNOWN
    return classes[probabilities.argmax()]


class Threshold(NamedTuple):
    """A probability below which the answer is UNKNOWN, and what it gave where it was fitted."""

    probability: float
    answered: float
    precision: float

    def describe(self):
        """Return one line."""
        return (
            f"threshold {self.probability:.4f}: on validation, {self.answered:.1%} of the images "
            f"are answered, {self.precision:.1%} of these rightly"
        )


def fit_threshold(probabilities, labels, precision):
    """Return the lowest Threshold whose answers are right at least so often.

    Takes float (n, classes), int (n,) and a share above 0. Raises UserError if none reaches it.
    """
    certainty = probabilities.max(1)
    order = np.argsort(-certainty, kind="stable")
    certainty, right = certainty[order], (probabilities.argmax(1) == labels)[order]
    reached = np.cumsum(right) / np.arange(1, len(right) + 1)
    # Equal probabilities are answered together, or not at all.
    is_last = np.append(certainty[1:] < certainty[:-1], True)
    good = np.flatnonzero(is_last & (reached >= precision))
    if not len(good):
        best = reached[is_last].max()
        raise UserError(
            f"no threshold reaches a precision of {precision:g} on "
            f"{counted(len(right), 'validation image')}: {best:.4f} is the best; lower "
            "--threshold_precision, or train further"
        )
    at = good[-1]
    # Where all are answered there is nothing to tell apart: new images may be less certain still.
    lowest = float(certainty[at]) if at + 1 < len(right) else 0.0
    return Threshold(lowest, float((at + 1) / len(right)), float(reached[at]))
