"""Real images that exports are compared on, and that 8-bit integers are calibrated with."""

from dataclasses import dataclass

import numpy as np

from library.dataset.records import parse_record

_COMPARED, _CALIBRATED = 512, 200


@dataclass(frozen=True)
class Samples:
    """Images of `split`, encoded as stored, and as uint8 pixels (n, height, width, channels).

    `calibration` are pixels of training images, None where nothing is to be calibrated.
    """

    split: str
    encoded: list
    pixels: np.ndarray
    calibration: np.ndarray | None


def read_samples(name, source, inputs, training_inputs):
    """Return the Samples of split `name`: its examples as `source`, and as evaluation sees them.

    `inputs` and `training_inputs` (or None) are EvaluationInputs of project/inputs.py.
    """
    records = [source.record(key) for key in source.keys(None).take(_COMPARED)]
    return Samples(
        split=name,
        encoded=[parse_record(each, ("encoded",))["encoded"].numpy() for each in records],
        pixels=_first_pixels(inputs, _COMPARED),
        calibration=training_inputs and _first_pixels(training_inputs, _CALIBRATED),
    )


def _first_pixels(inputs, count):
    batches = inputs.batches().unbatch().take(count).batch(count)
    ((pixels, _),) = batches.as_numpy_iterator()
    return pixels
