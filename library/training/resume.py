"""A run's checkpoints: found, checked, restored and saved."""

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.errors import CheckpointError, SettingsError
from library.files import current_folder, parse_json
from library.inputs.interfaces import TrainingInputs
from library.messages import counted, shown
from library.models.scores import is_multi_label
from library.saving.checkpoints import (
    Checkpoints,
    check_classes,
    check_multi_label,
    read_latest_settings,
    read_state,
    read_variables,
)
from library.saving.snapshots import DATA
from library.training.distribution import Devices
from library.training.divergence import LearningRateAt, check_state
from library.training.early_stopping import EarlyStopping
from library.training.ema import values_of
from library.training.parts import Parts
from library.training.plan import Plan, RunPaths
from library.training.steps import MetricSums, unwrap_optimizer
from library.training.train_state import TrainState

logger = logging.getLogger(__name__)

# The setting `model` that stands for whichever network was written last.
_LATEST = "latest"

# What a checkpoint stores beside variables, in state.json.
StateJson = Mapping[str, Any]


def describe_run(parts: Parts, training: TrainingInputs, plan: Plan, paths: RunPaths) -> StateJson:
    """Return what a run is, as its checkpoints store it, so that no other run resumes from them.

    The keys are those of version 0.1, whose checkpoints stay readable.
    """
    network, optimizer = parts.network, parts.optimizer
    before_ema = (network.variables, optimizer.variables, parts.schedule.variables)
    return {
        "classes": list(paths.classes),
        "several": is_multi_label(network),
        "image_shape": list(network.input_shape[1:]),
        "optimizer": type(unwrap_optimizer(optimizer)).__name__,
        "batches_per_epoch": training.batches_per_epoch,
        # What the order within an epoch depends on.
        "order": training.order,
        "goal": vars(plan.monitor),
        "settings": paths.settings,
        # The position of the averages among the saved variables.
        "averages_at": sum(map(len, before_ema)) if parts.ema else None,
    }


def check_fits(path: Path, stored: StateJson, wanted: StateJson) -> None:
    """Raise CheckpointError if a checkpoint is not one of this run.

    Args:
        path: The checkpoint.
        stored: What it says about its run. That of an earlier version may lack a key.
        wanted: The description of this run.
    """
    check_classes(path, stored["classes"], wanted["classes"])
    check_multi_label(path, stored.get("several", False), wanted["several"])
    models = stored["settings"].get("model"), wanted["settings"].get("model")
    if None not in models and _LATEST not in models and models[0] != models[1]:
        raise CheckpointError(
            f"checkpoint {path} is one of the network {models[0]}, and this run trains "
            f"{models[1]}: choose another --run_dir, or move the earlier run aside with "
            "--resume never"
        )
    advice = "or start over from its weights with another --run_dir and --checkpoint_path"
    # What is counted in steps, such as the learning-rate schedule, would mean something else.
    steps, wanted_steps = stored.get("batches_per_epoch"), wanted["batches_per_epoch"]
    if steps not in (None, wanted_steps):
        raise CheckpointError(
            f"checkpoint {path} was made with {counted(steps, 'step')} per epoch, now it is "
            f"{wanted_steps}: use the batch size, the images and, with --shard_by_file, the number "
            f"of workers that it was made with, {advice}"
        )
    # These may differ although all variables have the same shapes.
    for key in ("image_shape", "optimizer"):
        if stored.get(key, wanted[key]) != wanted[key]:
            raise CheckpointError(
                f"checkpoint {path} was made with {key.replace('_', ' ')} {stored[key]}, now it is "
                f"{wanted[key]}: use the settings it was made with, {advice}"
            )


def check_same_training(
    run_dir: str | Path,
    folders: tuple[Path, Path],
    settings: Mapping[str, Any],
    fingerprint: str | None,
) -> None:
    """Check that a run of an experiment was trained so far as its other runs are.

    More epochs are no other settings: the training is continued.

    Args:
        run_dir: The folder of the run.
        folders: Those of its checkpoints and of its best snapshot.
        settings: The settings that decide what is learned, as JSON values; None: chosen when the
            training began.
        fingerprint: Hash of the images to train on; None: unknown.

    Raises:
        CheckpointError: It was trained on other images.
        SettingsError: It has other settings.
    """
    checkpoints, best = folders
    advice = "choose another --run_dir, or start over with --resume never"
    stored = read_latest_settings(checkpoints)
    for name, value in settings.items():
        before = stored.get(name, value)
        if value in (None, before) or (name == "train_epochs" and value > before):
            continue
        raise SettingsError(
            f"{run_dir} was trained with {name} {shown(before)}, now it is {shown(value)}: use the "
            f"same settings for all runs of an experiment, {advice}"
        )
    learned = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        learned = parse_json((current_folder(best) / DATA).read_bytes()).get("fingerprint")
    if None not in (learned, fingerprint) and learned != fingerprint:
        raise CheckpointError(f"{run_dir} was trained on other images than there are now: {advice}")


def find_changes(stored: StateJson, paths: RunPaths) -> dict[str, tuple[Any, Any]]:
    """Return setting → (value of a checkpoint, value of this run) where they differ.

    A setting that the checkpoint's version did not know is no change if it has its default.
    """
    before = stored["settings"]
    return {
        key: (before.get(key), value)
        for key, value in paths.settings.items()
        if before.get(key) != value and (key in before or key not in paths.defaults)
    }


def log_changes(
    state: TrainState,
    stored: StateJson,
    wanted: StateJson,
    changes: Mapping[str, tuple[Any, Any]],
) -> None:
    """Log what differs between a checkpoint, which fits, and this run.

    Args:
        state: The restored state.
        stored: What the checkpoint says about its run.
        wanted: The description of this run.
        changes: The settings that differ: see `find_changes`.
    """
    for key, (before, value) in changes.items():
        logger.info(f"Changed since then: {key}, from {before} to {value}")
    if state.batch and stored.get("order") != wanted["order"]:
        logger.info(
            "Changed since then: the order of images, so in the rest of epoch "
            f"{state.epoch + 1} some may be repeated and others missing"
        )


@dataclass
class RunCheckpoints:
    """Restores the state and the variables of a run, and saves them."""

    checkpoints: Checkpoints
    parts: Parts
    totals: MetricSums
    description: StateJson  # of the run
    devices: Devices
    paths: RunPaths
    # Hyperparameters that differ from those of the restored checkpoint.
    changed: tuple[str, ...] = ()

    def variables(self) -> list[Any]:
        """Return all that a step changes, in the order in which checkpoints hold it."""
        parts = self.parts
        return [
            *parts.network.variables,
            *parts.optimizer.variables,
            *parts.schedule.variables,
            *(parts.ema.variables if parts.ema else ()),
            *self.totals.variables,
        ]

    def restore(self, total_steps: int) -> TrainState | None:
        """Restore the latest checkpoint; change nothing on disk.

        Args:
            total_steps: Number of steps that the run is planned to make.

        Returns:
            The restored state; None if there is no checkpoint.

        Raises:
            CheckpointError: The checkpoint is that of another run, or all are damaged.
        """
        path = self.devices.chief_first(self.checkpoints.find_latest)
        if path is None:
            return None
        stored = read_state(path)
        changes = find_changes(stored, self.paths)
        check_fits(path, stored, self.description)
        try:
            read_variables(path, self.variables())
        except CheckpointError as error:
            learned = {key: changes[key] for key in changes if key in self.paths.hyperparameters}
            if not learned:
                raise
            words = (
                f"{key} {shown(before)}, now {shown(now)}" for key, (before, now) in learned.items()
            )
            raise CheckpointError(
                f"checkpoint {path} has other variables: it was made with {', '.join(words)}; use "
                "the settings it was made with, or --resume never, or another --run_dir"
            ) from error
        self.changed = tuple(key for key in changes if key in self.paths.hyperparameters)
        state = TrainState.from_json(stored)
        # By name: another version may have stored fewer keys, or more.
        monitor, before = self.description["goal"], stored["goal"]
        changed = {key for key, value in monitor.items() if before.get(key, value) != value}
        if changed & {"metric", "mode"}:
            state.early_stopping = EarlyStopping()
        if changed and state.step < total_steps:
            # Another monitor may let the training continue.
            state.early_stopping.stopped = None
        logger.info(f"Resuming from {path}: epoch {state.epoch + 1}, step {state.step}")
        log_changes(state, stored, self.description, changes)
        return state

    def save(self, state: TrainState, learning_rate_at: LearningRateAt) -> None:
        """Save a checkpoint. Raise DivergedError if no training could continue from it."""
        variables = values_of(self.variables())
        count = len(self.parts.network.variables)
        check_state(variables[:count], variables[count:], state.step, learning_rate_at)
        if self.devices.is_chief:
            stored = {**state.to_json(), **self.description}
            self.checkpoints.save(state.step, variables, stored)
