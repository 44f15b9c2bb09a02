"""The command train."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.errors import SettingsError
from library.training.cluster import read_cluster
from project.commands.setup import read_data, start_tensorflow

logger = logging.getLogger(__name__)


def train(settings: Settings) -> None:
    """Train and save the best snapshot; resume where an earlier run stopped."""
    config = settings.project
    if config.debug and config.xla:
        raise SettingsError("debug and xla exclude each other: xla merges the checked operations")
    cluster = read_cluster()
    splits = read_data(config, "train", "validation")
    start_tensorflow(config, cluster)
    from library.inputs.corruption import explain_read_errors
    from library.training.debugging import check_overfit, dry_run, numeric_checks
    from library.training.progress import run_summary
    from project import assembly
    from project.schedules import sketch

    trainer = assembly.make_trainer(settings, splits, assembly.start_devices(settings, cluster))
    with explain_read_errors(*trainer.inputs), numeric_checks(config.debug):
        if settings.dry_run:
            updates = (
                trainer.timetable.total_steps / settings.hyperparameters.gradient_accumulation_steps
            )
            parts, classes = trainer.parts, trainer.paths.classes
            logger.info(run_summary(parts, trainer.inputs, classes, trainer.devices))
            logger.info(f"Learning rate: {sketch(parts.schedule, updates)}")
            logger.info(dry_run(parts, trainer.inputs))
            return
        best = trainer.fit()
    if not trainer.devices.is_chief:
        return
    logger.info(
        f"Best snapshot: {config.best_model_dir}, epoch {best['epoch']}, validation loss "
        f"{best['validation']['loss']:.4f}, accuracy {best['validation']['accuracy']:.4f}"
    )
    print(json.dumps({"snapshot": config.best_model_dir, **best}))
    if config.debug:
        logger.info(check_overfit(best["validation"], trainer.inputs.training.examples))
    elif config.report:
        write_report(settings, splits, trainer.inputs.validation)


def write_report(settings: Settings, splits: Sequence[Any], validation: Any) -> None:
    """Write report.html about the best snapshot on the validation split, unless it is current.

    Args:
        settings: The settings.
        splits: The training and the validation split.
        validation: The inputs of the validation split.
    """
    try:
        from library.reporting.report import write_training_report
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.reporting"):
            raise
        logger.info("no report.html, because library/reporting is missing")
        return
    from library.inputs.worker_slice import WHOLE_BATCH
    from project.load_network import evaluate_snapshot

    config = settings.project
    # This worker may have prepared only a part of each batch.
    inputs = replace(validation, worker_slice=WHOLE_BATCH)
    write_training_report(
        Path(config.run_dir),
        Path(config.best_model_dir),
        tuple(reversed(splits)),
        lambda snapshot: evaluate_snapshot(settings, snapshot, inputs, inputs),
        config.data_dir,
    )
