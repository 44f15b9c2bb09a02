"""Fit a temperature and a threshold to the validation split, on request."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from library.errors import SettingsError, UserError
from library.evaluation.calibration import fit_temperature
from library.evaluation.predictions import predict_batches
from library.inputs.corruption import explain_read_errors
from library.messages import counted
from library.models.scores import to_probabilities
from library.prediction.ensemble import combine_snapshots
from library.prediction.unknown_score import UnknownDetector
from library.saving.snapshots import Snapshot

# The answer below the threshold, and for images that a detector calls unknown.
UNKNOWN = "unknown"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CalibratedSnapshot:
    """A snapshot whose scores are already divided by `temperature`, and what tells unknown images.

    All are None where they were not asked for, or where no temperature fits.
    """

    snapshot: Snapshot
    temperature: float | None = None
    threshold: float | None = None
    detector: UnknownDetector | None = None


def calibrate(
    snapshot: Snapshot,
    inputs: Any,
    *,
    with_temperature: bool = False,
    precision: float | None = None,
    xla: bool = False,
) -> CalibratedSnapshot:
    """Fit a temperature, a threshold, or both to the validation split, and log them.

    Args:
        snapshot: The snapshot to calibrate.
        inputs: The validation split, as EvaluationPipeline of project/inputs.py.
        with_temperature: Fit a temperature.
        precision: Fit the threshold whose answers have at least this precision; None: no threshold.
        xla: Compile the network with XLA.

    Raises:
        SettingsError: `precision` is given for a multi-label network.
        UserError: No threshold reaches the precision.
    """
    with explain_read_errors(inputs):
        predictions = predict_batches(snapshot.network, inputs.named_batches(), xla=xla)
    temperature = threshold = None
    if with_temperature:
        temperature = fit_temperature(predictions.scores, predictions.labels)
        logger.info(f"temperature {temperature:.4f}" if temperature else "no temperature fits")
    if precision is not None:
        if predictions.multi_label:
            raise SettingsError(
                "threshold_precision needs one class per image; for multi-label data use threshold"
            )
        probabilities = np.asarray(to_probabilities(predictions.scores[:], temperature or 1.0))
        threshold = fit_threshold(probabilities, predictions.labels, precision)
        logger.info(str(threshold))
    return CalibratedSnapshot(
        combine_snapshots([snapshot], [temperature or 1.0]),
        temperature,
        threshold.probability if threshold else None,
    )


def check_class_names(classes: tuple[str, ...]) -> None:
    """Raise SettingsError if a class has the name of the answer for unknown images."""
    if UNKNOWN in classes:
        raise SettingsError(
            f"the class {UNKNOWN!r} has the name of the answer for unknown images: remove "
            "threshold, threshold_precision and unknown_rate, or rename the class"
        )


def choose_classes(
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    threshold: float | None = None,
    multi_label: bool = False,
    unknown_score: float | None = None,
) -> str | list[str]:
    """Return the answer for one image.

    Args:
        probabilities: Shape (classes,).
        classes: The class names, in the order of `probabilities`.
        threshold: The lowest probability to answer with; None: any, or 0.5 for multi-label.
        multi_label: Whether an image may have several classes, or none.
        unknown_score: Of a detector, if there is one; above 0, the image is unknown.

    Returns:
        The most likely class, or UNKNOWN if it is below the threshold or the image is unknown; for
        multi-label the list of all classes at or above it, or of UNKNOWN alone.
    """
    if unknown_score is not None and unknown_score > 0:
        return [UNKNOWN] if multi_label else UNKNOWN
    if multi_label:
        lowest = 0.5 if threshold is None else threshold
        return [classes[index] for index in (probabilities >= lowest).nonzero()[0]]
    if threshold is not None and probabilities.max() < threshold:
        return UNKNOWN
    return classes[probabilities.argmax()]


@dataclass(frozen=True)
class Threshold:
    """A probability below which the answer is UNKNOWN, and its effect on the validation split."""

    probability: float
    answered: float
    precision: float

    def __str__(self) -> str:
        return (
            f"threshold {self.probability:.4f}: on validation, {self.answered:.1%} of the images "
            f"are answered, {self.precision:.1%} of them correctly"
        )


def fit_threshold(probabilities: np.ndarray, labels: np.ndarray, precision: float) -> Threshold:
    """Return the lowest threshold whose answers reach a precision.

    Args:
        probabilities: Shape (n, classes).
        labels: Class ids, shape (n,).
        precision: Share of the answers that must be correct, above 0.

    Raises:
        UserError: No threshold reaches the precision.
    """
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    confidence, correct = confidence[order], (probabilities.argmax(1) == labels)[order]
    reached = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    # Equal probabilities are answered together, or not at all.
    is_last = np.append(confidence[1:] < confidence[:-1], True)
    candidates = np.flatnonzero(is_last & (reached >= precision))
    if not len(candidates):
        raise UserError(
            f"no threshold reaches a precision of {precision:g} on "
            f"{counted(len(correct), 'validation image')} (highest: {reached[is_last].max():.4f}); "
            "lower --threshold_precision or train further"
        )
    last = candidates[-1]
    # If all images are answered, use 0: new images may be less certain than any of these.
    lowest = float(confidence[last]) if last + 1 < len(correct) else 0.0
    return Threshold(lowest, float((last + 1) / len(correct)), float(reached[last]))
