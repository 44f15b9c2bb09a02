"""From which probability on an answer is given: told, or fitted to a precision on a split."""

from typing import NamedTuple

import numpy as np

from library.counted import counted
from library.errors import SettingsError, UserError

UNKNOWN = "unknown"


def check_names(classes):
    """Raise SettingsError where a class has the very name of the answer below a threshold."""
    if UNKNOWN in classes:
        raise SettingsError(
            f"the class {UNKNOWN!r} could not be told from the answer below a threshold: leave out "
            "threshold and threshold_precision, or rename the class"
        )


def choose_answer(probabilities, classes, threshold=None, several=False):
    """Give the answer to the probabilities (classes,) of one image: a class, or UNKNOWN below.

    Where `several` classes may be right at once: a list of all from the threshold on, 0.5 if None.
    """
    if several:
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
        """Give one line."""
        return (
            f"threshold {self.probability:.4f}: on validation, {self.answered:.1%} of the images "
            f"are answered, {self.precision:.1%} of these rightly"
        )


def fit_threshold(probabilities, labels, precision):
    """Give the lowest Threshold whose answers are right at least so often.

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
