"""The command profile."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.configuration.paths import is_url
from library.configuration.reader import Settings
from library.configuration.schema import Value
from library.dataset.worker_pool import available_cores
from library.errors import SettingsError
from library.files import in_use
from library.messages import counted
from project.commands.setup import start_tensorflow
from project.commands.train import manifest_paths, read_training_data

if TYPE_CHECKING:
    from library.profiling.bottleneck import Context

logger = logging.getLogger(__name__)

# For each pipeline without one of the augmentations.
_AUGMENTATION_SECONDS = 0.5
# Load per core from which on a warning is due; importing TensorFlow alone makes less.
_BUSY = 1.2


def profile(settings: Settings) -> None:
    """Train some seconds as the settings say; print where the time goes, and the bottleneck.

    Nothing is written into the run directory, and no run is resumed.

    Raises:
        SettingsError: Settings exclude each other.
        DataError: Data is missing or invalid.
    """
    from library.profiling.stage_clock import StageClock

    clock = StageClock()
    output = settings.project.compare_format
    if output not in ("text", "json"):
        raise SettingsError(f"format {output}: profile takes text or json")
    with clock.stage("set up"):
        splits = read_training_data(settings.project)
    with clock.stage("import"):
        start_tensorflow(settings.project)
        from library.inputs.corruption import explain_read_errors
        from library.profiling.bottleneck import find_bottleneck
        from library.profiling.output import format_profile, to_json
        from library.profiling.training_profile import Budget, profile_training
        from project import assembly
    with _folder_beside(settings.project.run_dir) as folder:
        settings = _without_run(settings, folder)
        with clock.stage("set up"):
            devices = assembly.start_devices(settings)
            trainer = assembly.make_trainer(settings, splits, devices)
        _log_limits(trainer)
        with in_use(manifest_paths(splits)), explain_read_errors(*trainer.inputs):
            found = profile_training(trainer, clock, Budget())
            stage = find_bottleneck(found.planned_seconds)
            context = _read_context(settings, trainer, stage)
    if output == "json":
        print(to_json(found, context))
    else:
        print("\n".join(format_profile(found, context)))


@contextmanager
def _folder_beside(run_dir: str) -> Iterator[str]:
    """Yield an empty folder, on the disk of the run directory if it can be written to."""
    from library.machine.disk import existing_folder

    where = None if is_url(run_dir) else existing_folder(Path(run_dir).parent)
    try:
        folder = tempfile.TemporaryDirectory(prefix=".profile-", dir=where)
    except OSError:
        folder = tempfile.TemporaryDirectory(prefix="profile-")
    with folder as name:
        yield name


def _without_run(settings: Settings, folder: str) -> Settings:
    """Return the settings for a run of its own in a folder, which reports to nobody."""
    new: dict[str, Any] = {"run_dir": folder, "resume": "never", "trackers": (), "debug": False}
    new |= {"model_dir": None, "best_model_dir": None, "cache_dir": None, "profile_steps": ()}
    if settings.project.engine == "fit":
        logger.info("engine fit: the engine loop is profiled, whose steps are the same")
        new["engine"] = "loop"
    return settings.with_values({name: Value(each, "profile") for name, each in new.items()})


def _log_limits(trainer: Any) -> None:
    """Log what makes the figures differ from those of a training."""
    if trainer.parts.unfreezing or trainer.inputs.training.stages:
        logger.warning(
            "only the beginning is profiled: epochs take longer once more layers are trained, or "
            "images are larger (unfreezing, progressive)"
        )
    load, cores = os.getloadavg()[0], available_cores()
    if load > _BUSY * cores:
        logger.warning(
            f"other programs use the processors (load {load:.1f}, {counted(cores, 'core')}): "
            "stages seem to take longer; profile again when they have ended"
        )


def _read_context(settings: Settings, trainer: Any, stage: str) -> "Context":
    """Return what the advice about a stage needs to know."""
    from library.describing.pipeline_benchmark import advise_stage
    from library.diagnosis.diagnosis import choices_of
    from library.machine.hardware import read_cpu, read_memory
    from library.machine.tensorflow_build import read_gpus
    from library.profiling.bottleneck import Context
    from library.profiling.input_costs import (
        AUGMENT,
        DECODE,
        INPUT_STAGES,
        mean_stored_shape,
        measure_augmentations,
    )
    from project.augmentations import choose_augmentations

    config, training = settings.project, trainer.inputs.training
    names = ("dtype", "xla", "cache", "augment_on_device")
    chosen = {name: getattr(config, name) for name in names}
    shares: dict[str, float] = {}
    if stage == AUGMENT:
        words = settings.hyperparameters.augmentations
        rest = {each: choose_augmentations([w for w in words if w != each]) for each in words}
        changing = {
            each: replace(training, augmentations=others)
            for each, others in rest.items()
            if others.has_crop == training.augmentations.has_crop
        }
        shares = measure_augmentations(training, changing, _AUGMENTATION_SECONDS)
    return Context(
        choices=choices_of(read_gpus(), read_cpu(), read_memory(), chosen),
        cache_bytes=training.examples * training.source.mean_bytes,
        image_shape=training.image_format.shape[:2],
        stored_shape=mean_stored_shape(training.source) if stage == DECODE else None,
        input_advice={each: advise_stage(each, training.source) for each in INPUT_STAGES},
        augmentations=shares,
    )
