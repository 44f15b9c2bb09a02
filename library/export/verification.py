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
    """The largest difference of a probability, and the share of images with the same class."""

    difference: float
    agreement: float


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
    format_name: str, found: np.ndarray, expected: np.ndarray, *, multi_label: bool = False
) -> Comparison:
    """Compare an export's probabilities with the snapshot's.

    Args:
        format_name: The export's format.
        found: The export's probabilities, shape (n, classes).
        expected: The snapshot's probabilities, shape (n, classes).
        multi_label: Images agree if they have the same set of classes, each from 0.5 on, instead of
            the same most likely class.

    Raises:
        UserError: They differ by more than the format allows.
    """
    if multi_label:
        same = ((found >= 0.5) == (expected >= 0.5)).all(1)
    else:
        same = found.argmax(1) == expected.argmax(1)
    agreement = float(same.mean())
    difference = float(np.abs(found - expected).max())
    tolerance = FORMATS[format_name].tolerance
    # Written so that NaN fails.
    if tolerance is not None and not difference <= tolerance:
        raise UserError(
            f"nothing was exported: probabilities of {format_name} differ from the snapshot's by "
            f"up to {difference:.2g}, more than {tolerance:g}"
        )
    if not agreement >= _AGREEMENT or np.isnan(difference):
        word = "classes" if multi_label else "class"
        raise UserError(
            f"nothing was exported: {format_name} gives the snapshot's {word} for "
            f"{agreement:.1%} of {counted(len(found), 'image')}, less than {_AGREEMENT:.0%}"
        )
    return Comparison(difference, agreement)
