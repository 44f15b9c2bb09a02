"""What evaluate adds on request: metrics of slices, and accuracy on corrupted images."""

import logging
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.configuration.schema import DEFAULT, Value
from library.dataset.sources.base import TRAINING
from library.errors import DataError
from library.evaluation.evaluate import EvaluationResult
from library.robustness.attributes import Table, match_attributes, read_attributes
from library.robustness.corruptions import (
    CORRUPTION_FIGURE,
    CORRUPTION_TABLE,
    format_corruptions,
    measure_corruptions,
    write_corruptions,
)
from library.robustness.image_properties import measure_properties
from library.robustness.slices import (
    SLICE_TABLE,
    SliceOptions,
    format_slices,
    measure_slices,
    share_name,
    write_slices,
)
from project.commands.setup import read_data
from project.input_assembly import make_evaluation_inputs
from project.settings import PROPERTIES, Project

logger = logging.getLogger(__name__)


def read_table(config: Project) -> Table:
    """Return the user's attributes of images, if the settings name a file. Raises DataError."""
    return read_attributes(config.slices) if config.slices not in (None, PROPERTIES) else {}


def measure_robustness(
    settings: Settings, split: Any, result: EvaluationResult, table: Table
) -> dict[str, Any]:
    """Return what the settings ask for, as a dict for an evaluation's JSON, and log it.

    Args:
        settings: The settings.
        split: The evaluated split.
        result: What the evaluation found.
        table: As `read_table` returns it.

    Raises:
        DataError: An image can't be read, or the table is about other images.
    """
    config, found = settings.project, dict[str, Any]()
    if config.slices:
        names = result.predictions.names
        own = match_attributes(table, names, config.slices) if table else {}
        attributes = {**_measure_properties(settings, split, result), **own}
        options = SliceOptions(config.bootstrap_samples, config.random_seed)
        rows = measure_slices(result.predictions, result.losses, attributes, options)
        _log(format_slices(rows, share_name(result.predictions)))
        found["slices"] = rows
    if config.corruptions:
        found["corruptions"] = measure_corruptions(
            result.snapshot,
            result.inputs,
            result.predictions,
            seed=config.random_seed,
            xla=config.xla,
        )
        _log(format_corruptions(found["corruptions"]))
    return found


def write_robustness(path: Path, found: dict[str, Any]) -> None:
    """Write the tables and the figure beside an evaluation's JSON, which is at `path`."""
    if "slices" in found:
        write_slices(path.with_suffix(SLICE_TABLE), found["slices"])
    if "corruptions" in found:
        table, figure = (path.with_suffix(each) for each in (CORRUPTION_TABLE, CORRUPTION_FIGURE))
        write_corruptions(table, figure, found["corruptions"])


def _measure_properties(settings: Settings, split: Any, result: EvaluationResult) -> dict:
    config, image_format = settings.project, result.snapshot.image_format
    # A cache has no room for the stored sizes.
    uncached = settings.with_values({"cache": Value("none", DEFAULT)})
    training = None
    if split.name != TRAINING:
        try:
            (training_split,) = read_data(config, TRAINING)
            training = make_evaluation_inputs(uncached, training_split, image_format)
        except DataError as error:
            logger.info(f"not compared with training images: {error}")
    inputs = make_evaluation_inputs(uncached, split, image_format)
    return measure_properties(inputs, len(result.predictions), training)


def _log(lines: Any) -> None:
    logger.info("")
    for line in lines:
        logger.info(line)
