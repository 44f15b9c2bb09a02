"""The command `export`."""

import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from library.errors import SettingsError
from library.messages import counted
from project.commands.setup import (
    print_result,
    read_data,
    read_validation,
    refuse_without_effect,
    start_tensorflow,
)

logger = logging.getLogger(__name__)


def export(settings: Any) -> None:
    """Export the best snapshot, and compare each format with it before it gets its name."""
    config = settings.project
    refuse_without_effect(config, "export", "threshold", "threshold_precision")
    _check_name(config.export_name)
    # Training images are needed only to calibrate integers.
    names = ("validation", "train") if "litert_int8" in config.export_formats else ("validation",)
    splits = read_data(config, *names)
    validation_split = read_validation(config)
    start_tensorflow(config)
    from library.export.export import export_snapshot
    from library.export.formats import check_formats
    from project import load_network

    check_formats(config.export_formats, embedding=config.embedding)
    snapshot = load_network.read_chosen_snapshot(settings)
    calibrated = load_network.fit_to_validation(settings, snapshot, validation_split)
    samples = _read_samples(settings, snapshot, *splits)
    folder, comparisons = export_snapshot(
        calibrated,
        Path(config.export_dir) / config.export_name,
        config.export_formats,
        samples,
        embedding=config.embedding,
    )
    images = counted(len(samples.pixels), f"{samples.split} image")
    for name, comparison in comparisons.items():
        logger.info(
            f"{name}: probabilities within {comparison.difference:.1e} of the snapshot's, the "
            f"same class for {comparison.agreement:.1%} of {images}"
        )
    formats = {name: asdict(comparison) for name, comparison in comparisons.items()}
    logger.info(f"exported to {folder}")
    print_result({"export": str(folder), "formats": formats})


def _read_samples(settings: Any, snapshot: Any, split: Any, training_split: Any = None) -> Any:
    """Return the images to compare exports on, and those to calibrate integers with, if any."""
    from library.export.verification import read_export_samples
    from library.inputs.corruption import explain_read_errors
    from project.input_assembly import make_split_source
    from project.load_network import make_inputs_for

    inputs = make_inputs_for(snapshot, settings, split)
    training = training_split and make_inputs_for(snapshot, settings, training_split)
    with explain_read_errors(*filter(None, (inputs, training))):
        return read_export_samples(
            split.name, make_split_source(settings.project, split), inputs, training
        )


def _check_name(name: str) -> None:
    """Raise SettingsError for a name that cannot stand in a shell command and in a URL."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name) or not name.strip("."):
        raise SettingsError(
            f"export_name {name!r} is not a valid name; use letters a to z, digits, dots, dashes "
            "and underscores"
        )
