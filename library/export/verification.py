"""Compare an export with its snapshot, on images as they are stored."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from library.dataset.records import parse_record
from library.errors import UserError
from library.export.formats import FORMATS
from library.messages import counted

# The share of the images that must get the same class.
_AGREEMENT = 0.98
# How much more unknown scores, whose unit is their standard deviation, may differ.
_SCORE_TOLERANCE = 100
_COMPARED_IMAGES, _CALIBRATION_IMAGES = 512, 200


@dataclass(frozen=True)
class ExportSamples:
    """Images of one split to compare exports on, and images to calibrate 8-bit integers with.

    Attributes:
        split: The split's name.
        encoded: The images as stored.
        pixels: The same images as evaluation sees them: uint8 (n, height, width, channels).
        calibration: Pixels of training images; None if nothing needs calibration.
    """

    split: str
    encoded: list[bytes]
    pixels: np.ndarray
    calibration: np.ndarray | None


@dataclass(frozen=True)
class Comparison:
    """How an export differs from its snapshot.

    Attributes:
        difference: The largest difference of a probability.
        agreement: The share of images with the same answer.
        unknown_difference: The largest difference of an unknown score; None without a detector.
    """

    difference: float
    agreement: float
    unknown_difference: float | None = None


def read_export_samples(
    split: str, source: Any, inputs: Any, training_inputs: Any | None
) -> ExportSamples:
    """Read the first images of a split.

    Args:
        split: The split's name.
        source: Its examples, an ExampleSource.
        inputs: The same examples as EvaluationPipeline of project/inputs.py.
        training_inputs: EvaluationPipeline of the training split, or None.
    """
    records = [source.record(key) for key in source.keys().take(_COMPARED_IMAGES)]
    return ExportSamples(
        split=split,
        encoded=[parse_record(record, ("encoded",))["encoded"].numpy() for record in records],
        pixels=_first_pixels(inputs, _COMPARED_IMAGES),
        calibration=training_inputs and _first_pixels(training_inputs, _CALIBRATION_IMAGES),
    )


def _first_pixels(inputs: Any, count: int) -> np.ndarray:
    batches = inputs.batches().unbatch().take(count).batch(count)
    ((pixels, _),) = batches.as_numpy_iterator()
    return pixels


def compare(
    format_name: str,
    found: np.ndarray,
    expected: np.ndarray,
    *,
    multi_label: bool = False,
    has_unknown_score: bool = False,
) -> Comparison:
    """Compare an export's probabilities with the snapshot's.

    Args:
        format_name: The export's format.
        found: The export's probabilities, shape (n, classes).
        expected: The snapshot's probabilities, shape (n, classes).
        multi_label: Images agree if they have the same set of classes, each from 0.5 on, instead of
            the same most likely class.
        has_unknown_score: Both arrays have the unknown scores in one more column. Images agree if
            both or neither are unknown, too.

    Raises:
        UserError: They differ by more than the format allows.
    """
    unknown = np.zeros((2, len(found), 0))
    if has_unknown_score:
        unknown = np.stack([found[:, -1:], expected[:, -1:]])
        found, expected = found[:, :-1], expected[:, :-1]
    if multi_label:
        same = ((found >= 0.5) == (expected >= 0.5)).all(1)
    else:
        same = found.argmax(1) == expected.argmax(1)
    same &= ((unknown[0] > 0) == (unknown[1] > 0)).all(1)
    agreement = float(same.mean())
    difference = float(np.abs(found - expected).max())
    unknown_difference = float(np.abs(unknown[0] - unknown[1]).max()) if has_unknown_score else 0.0
    tolerance = FORMATS[format_name].tolerance
    for what, differs, factor in (
        ("probabilities", difference, 1),
        ("unknown scores", unknown_difference, _SCORE_TOLERANCE),
    ):
        # Written so that NaN fails.
        if tolerance is not None and not differs <= factor * tolerance:
            raise UserError(
                f"nothing was exported: {what} of {format_name} differ from the snapshot's by up "
                f"to {differs:.2g}, more than {factor * tolerance:g}"
            )
    if not agreement >= _AGREEMENT or np.isnan([difference, unknown_difference]).any():
        word = "classes" if multi_label else "class"
        raise UserError(
            f"nothing was exported: {format_name} gives the snapshot's {word} for "
            f"{agreement:.1%} of {counted(len(found), 'image')}, less than {_AGREEMENT:.0%}"
        )
    return Comparison(difference, agreement, unknown_difference if has_unknown_score else None)
