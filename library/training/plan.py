"""The plan of a run: how long to train, how often to do what, and where to write."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.errors import SettingsError
from library.messages import ChoiceError, counted, unknown_name
from library.training.early_stopping import Monitor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to do what. The fields have the names of their settings."""

    train_epochs: int
    save_summary_steps: int
    save_checkpoints_secs: float
    keep_checkpoint_max: int
    max_train_steps: int | None = None
    max_minutes: float | None = None
    steps_per_execution: int = 1
    xla: bool = False
    # Evaluate by seconds if given, else by steps if given, else by epochs; and at the end.
    epochs_between_evals: int = 1
    steps_between_evals: int | None = None
    eval_throttle_secs: float | None = None
    max_eval_steps: int | None = None
    weight_histograms: bool = False
    profile_steps: tuple[int, int] | None = None  # the first and the last
    resume: str = "auto"  # auto, never, must
    monitor: Monitor = field(default_factory=Monitor)

    def total_steps(self, batches_per_epoch: int) -> int:
        """Return the number of steps after which training is finished."""
        steps = self.train_epochs * batches_per_epoch
        return steps if self.max_train_steps is None else min(steps, self.max_train_steps)

    def check(self, total_steps: int, steps_per_update: int, metrics: Sequence[str]) -> None:
        """Log a warning for each setting that has no effect.

        Args:
            total_steps: Number of steps of the training.
            steps_per_update: Number of steps whose gradients make one update of the weights.
            metrics: Names of the known metrics.

        Raises:
            SettingsError: No update of the weights would be made, or the metric is unknown.
        """
        monitor = self.monitor
        if monitor.metric not in metrics:
            raise ChoiceError(unknown_name("metric", monitor.metric, metrics))
        accumulation = f"gradient_accumulation_steps {steps_per_update}"
        steps = counted(total_steps, "step")
        if steps_per_update > total_steps:
            raise SettingsError(
                f"{accumulation}: the training has {steps}, so no weight would be updated"
            )
        left = total_steps % steps_per_update
        if left and self.max_minutes is None:
            logger.warning(
                f"{accumulation}: the gradients of the last {left} of {steps} are not used"
            )
        patience, plateau_patience = monitor.patience, monitor.plateau_patience
        if plateau_patience and patience and patience <= plateau_patience:
            logger.warning(
                f"plateau_patience {plateau_patience} has no effect: the training stops first, "
                f"with early_stopping_patience {patience}"
            )


@dataclass(frozen=True)
class RunPaths:
    """Where a run writes, and what it writes beside the networks."""

    run_dir: Path
    checkpoints: Path
    best: Path
    classes: tuple[str, ...]
    # Files for the snapshot, by name: the settings, and a description of the training split.
    texts: Mapping[str, str] = field(default_factory=dict)
    # Key → value, to report on a resume what has changed since.
    settings: Mapping[str, Any] = field(default_factory=dict)
    # Which of these have their default, and which decide what is learned.
    defaults: Collection[str] = ()
    hyperparameters: Collection[str] = ()
