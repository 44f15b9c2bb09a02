"""A run's checkpoints: found, checked, restored and saved."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from library.errors import CheckpointError
from library.messages import counted
from library.models.scores import is_multi_label
from library.saving.checkpoints import (
    Checkpoints,
    check_classes,
    check_multi_label,
    read_state,
    read_variables,
)
from library.training.distribution import Devices
from library.training.divergence import LearningRateAt, check_state
from library.training.early_stopping import EarlyStopping, Monitor
from library.training.parts import Parts, TrainingData
from library.training.plan import Plan, RunPaths
from library.training.steps import MetricSums, unwrap_optimizer
from library.training.train_state import TrainState

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunDescription:
    """What a run is: stored in its checkpoints, so that another run does not resume from them."""

    classes: Sequence[str]
    is_multi_label: bool
    image_shape: Sequence[int]
    optimizer: str  # the name of its class
    batches_per_epoch: int
    order: Sequence[Any] | None  # what the order within an epoch depends on; None: unknown
    monitor: Monitor
    settings: Mapping[str, Any]
    ema_start: int | None  # where among the saved variables the averages begin; None: no averages

    @classmethod
    def of(cls, parts: Parts, training: TrainingData, plan: Plan, paths: RunPaths) -> Self:
        """Describe the run of these parts."""
        network, optimizer, schedule = parts.network, parts.optimizer, parts.schedule
        before_ema = (network.variables, optimizer.variables, schedule.variables)
        return cls(
            classes=paths.classes,
            is_multi_label=is_multi_label(network),
            image_shape=network.input_shape[1:],
            optimizer=type(unwrap_optimizer(optimizer)).__name__,
            batches_per_epoch=training.batches_per_epoch,
            order=training.order,
            monitor=plan.monitor,
            settings=paths.settings,
            ema_start=sum(map(len, before_ema)) if parts.ema else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the entries of a checkpoint's state.json, by the names that version 0.1 chose."""
        return {
            "classes": list(self.classes),
            "several": self.is_multi_label,
            "image_shape": list(self.image_shape),
            "optimizer": self.optimizer,
            "batches_per_epoch": self.batches_per_epoch,
            "order": self.order,
            "goal": vars(self.monitor),
            "settings": self.settings,
            "averages_at": self.ema_start,
        }

    def check(self, path: Path, stored: Mapping[str, Any]) -> None:
        """Raise CheckpointError if a checkpoint, whose state.json is `stored`, does not fit."""
        check_classes(path, stored["classes"], self.classes)
        check_multi_label(path, stored.get("several", False), self.is_multi_label)
        advice = "or start over from its weights with another --run_dir and --checkpoint_path"
        mine = self.to_json()
        # Checkpoints of earlier versions may lack an entry.
        steps = stored.get("batches_per_epoch") or self.batches_per_epoch
        # What is counted in steps, such as the learning-rate schedule, would mean something else.
        if steps != self.batches_per_epoch:
            raise CheckpointError(
                f"checkpoint {path} was made with {counted(steps, 'step')} per epoch, now it is "
                f"{self.batches_per_epoch}: use the batch size, the images and, with "
                f"--shard_by_file, the number of workers that it was made with, {advice}"
            )
        # These may differ although all variables have the same shapes.
        for name in ("image_shape", "optimizer"):
            if stored.get(name, mine[name]) != mine[name]:
                raise CheckpointError(
                    f"checkpoint {path} was made with {name.replace('_', ' ')} {stored[name]}, now "
                    f"it is {mine[name]}: use the settings it was made with, {advice}"
                )

    def log_changes(self, stored: Mapping[str, Any], state: TrainState) -> None:
        """Log what has changed since a checkpoint whose state.json is `stored`."""
        for key, value in self.settings.items():
            before = stored["settings"].get(key)
            if before != value:
                logger.info(f"Changed since then: {key}, from {before} to {value}")
        if state.batch and stored.get("order") != self.order:
            logger.info(
                "Changed since then: the order of images, so in the rest of epoch "
                f"{state.epoch + 1} some may be repeated and others missing"
            )

    def adapt_early_stopping(
        self, stored: Mapping[str, Any], state: TrainState, *, is_finished: bool
    ) -> None:
        """Reset in `state` what was counted with a monitor other than this run's.

        Args:
            stored: state.json of the checkpoint.
            state: The state restored from it.
            is_finished: Whether all steps are made; if not, the training may continue.
        """
        # By name: the monitor of another version may have fewer fields, or more.
        before = stored["goal"]
        changed = {k for k, v in vars(self.monitor).items() if before.get(k, v) != v}
        if changed & {"metric", "mode"}:
            state.early_stopping = EarlyStopping()
        if changed and not is_finished:
            state.early_stopping.stopped = None


class RunCheckpoints:
    """Restores the state and the variables of a run, and saves them."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        parts: Parts,
        totals: MetricSums,
        description: RunDescription,
        devices: Devices,
    ) -> None:
        self._checkpoints = checkpoints
        self._parts, self._totals = parts, totals
        self._description = description
        self._devices = devices

    def variables(self) -> list[Any]:
        """Return all that a step changes, in the order in which checkpoints hold it."""
        parts = self._parts
        return [
            *parts.network.variables,
            *parts.optimizer.variables,
            *parts.schedule.variables,
            *(parts.ema.variables if parts.ema else ()),
            *self._totals.variables,
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
        path = self._devices.chief_first(self._checkpoints.find_latest)
        if path is None:
            return None
        stored = read_state(path)
        self._description.check(path, stored)
        read_variables(path, self.variables())
        state = TrainState.from_json(stored)
        is_finished = state.step >= total_steps
        self._description.adapt_early_stopping(stored, state, is_finished=is_finished)
        logger.info(f"Resuming from {path}: epoch {state.epoch + 1}, step {state.step}")
        self._description.log_changes(stored, state)
        return state

    def save(self, state: TrainState, learning_rate_at: LearningRateAt) -> None:
        """Save a checkpoint. Raise DivergedError if no training could continue from it."""
        # Reading them may take all workers.
        variables = self._devices.read(self.variables())
        count = len(self._parts.network.variables)
        check_state(variables[:count], variables[count:], state.step, learning_rate_at)
        if self._devices.is_chief:
            stored = {**state.to_json(), **self._description.to_json()}
            self._checkpoints.save(state.step, variables, stored)
