"""The command train."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.dataset.class_checks import check_trainable, log_lacking_classes
from library.dataset.manifest import Manifest
from library.errors import SettingsError, if_interrupted, printable
from library.files import in_use
from project.commands.setup import data_name, print_result, read_data, start_tensorflow

logger = logging.getLogger(__name__)

# The settings of project.yaml that decide, beside all hyperparameters, what is learned.
_DECISIVE = (
    *("fold", "image_size", "image_width", "channels", "fit", "crop_fraction", "random_seed"),
    *("dtype", "train_epochs", "train_steps", "train_batch_size", "best_metric"),
    *("best_metric_mode", "early_stopping_patience", "early_stopping_min_delta", "stop_threshold"),
)


def train(settings: Settings) -> None:
    """Train and save the best snapshot; resume where an earlier run stopped."""
    config = settings.project
    if config.debug and config.xla:
        raise SettingsError("debug and xla exclude each other: xla merges the checked operations")
    with if_interrupted("No step is lost; run the same command again."):
        cluster = find_cluster()
        splits = read_training_data(config)
        start_tensorflow(config, cluster)
        best = train_splits(settings, splits, cluster)
    if best:
        print_result({"snapshot": settings.as_written(config.best_model_dir), **best})


def read_training_data(config: Any) -> Sequence[Any]:
    """Return the training and the validation split. Raises DataError if they can't be used."""
    splits = read_data(config, "train", "validation")
    check_trainable(splits[0])
    log_lacking_classes(splits)
    return splits


def decisive_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide what is learned, as JSON values."""
    config = settings.project.model_dump(mode="json")
    decisive = {name: config[name] for name in _DECISIVE}
    return {**decisive, **settings.hyperparameters.model_dump(mode="json")}


def train_splits(
    settings: Settings, splits: Sequence[Any], cluster: Any = None
) -> Mapping[str, Any] | None:
    """Train, save the best snapshot, and write the report.

    Args:
        settings: The settings.
        splits: The training and the validation split, as `read_data` returns them.
        cluster: The Cluster that this process belongs to; None: no other.

    Returns:
        The best snapshot's metrics; None after a dry run, and in workers other than the chief.
    """
    config = settings.project
    from library.inputs.corruption import explain_read_errors
    from library.training.debugging import numeric_checks
    from project import assembly
    from project.data_defaults import log_if_pretrained_is_better

    devices = assembly.start_devices(settings, cluster)
    log_if_pretrained_is_better(settings, splits[0])
    with devices.explain_lost_workers():
        trainer = assembly.make_trainer(settings, splits, devices)
    checks = numeric_checks() if config.debug else nullcontext()
    # Until the end, conversion must not replace these shards.
    with in_use(manifest_paths(splits)), explain_read_errors(*trainer.inputs), checks:
        if settings.dry_run:
            log_dry_run(trainer)
            return None
        best = trainer.fit()
    if not trainer.devices.is_chief:
        return None
    log_best(config.best_model_dir, best)
    from library.training.interruption import FINISHED

    with if_interrupted(FINISHED):
        if config.debug:
            from library.training.debugging import check_overfit

            logger.info(check_overfit(best["validation"], trainer.inputs.training.examples))
        elif config.report:
            write_report(settings, splits, trainer.inputs.validation)
    return best


def manifest_paths(splits: Sequence[Any]) -> list[Path]:
    """Return the manifests of converted splits."""
    return [path for each in splits if isinstance(each, Manifest) for path in each.manifest_paths]


def find_cluster() -> Any:
    """Return the Cluster if the environment asks for several workers, else None.

    Raises:
        SettingsError: A variable is malformed, or library/distributed was deleted.
    """
    has_tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "") not in ("", "1")
    if not has_tasks and not os.environ.get("TF_CONFIG", "").strip():
        return None
    try:
        from library.distributed.cluster import read_cluster
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.distributed"):
            raise
        variable = "SLURM_STEP_NUM_TASKS" if has_tasks else "TF_CONFIG"
        raise SettingsError(
            f"{variable} asks for several workers, and library/distributed is missing: restore it, "
            f"or unset {variable}"
        ) from None
    return read_cluster()


def log_dry_run(trainer: Any) -> None:
    """Log what a Trainer would do, and run one batch of each split through its network."""
    from library.training.debugging import dry_run
    from library.training.progress import run_summary
    from project.schedules import sketch

    parts = trainer.parts
    logger.info(run_summary(parts, trainer.inputs, trainer.paths.classes, trainer.devices))
    logger.info(f"Learning rate: {sketch(parts.schedule, trainer.timetable.total_steps)}")
    logger.info(dry_run(parts, trainer.inputs))


def log_best(folder: str, best: Mapping[str, Any]) -> None:
    """Log the best snapshot's metrics."""
    validation, metric = best["validation"], best["monitored"].removeprefix("validation ")
    names = dict.fromkeys(("loss", "accuracy", metric))
    values = ", ".join(f"{printable(name)} {validation[name]:.4f}" for name in names)
    logger.info(f"Best snapshot: {folder}, epoch {best['epoch']}, validation {values}")


def write_report(settings: Settings, splits: Sequence[Any], validation: Any) -> None:
    """Write report.html about the best snapshot on the validation split, unless it is current.

    Args:
        settings: The settings.
        splits: The training and the validation split.
        validation: The inputs of the validation split.
    """
    try:
        from library.reporting.report import REPORT, write_training_report
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
        data_name(config),
    )
    if config.trackers:
        from project.trackers import log_file

        log_file(config.run_dir, REPORT)
