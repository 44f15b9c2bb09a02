"""What a run is asked for: how long, how often what, and what is kept where."""

from dataclasses import dataclass, field
from pathlib import Path

from library.errors import SettingsError
from library.messages import ChoiceError, counted, unknown_name
from library.training.early_stopping import Monitor


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to do what."""

    train_epochs: int
    max_train_steps: int | None = None
    max_minutes: float | None = None
    steps_per_execution: int = 1
    # Evaluate by seconds if given, else by steps if given, else by epochs; and at the end.
    epochs_between_evals: int = 1
    steps_between_evals: int | None = None
    eval_throttle_secs: float | None = None
    max_eval_steps: int | None = None
    save_summary_steps: int = 100
    weight_histograms: bool = False
    profile_steps: tuple | None = None  # the first and the last
    save_checkpoints_secs: float = 600
    keep_checkpoint_max: int = 3
    resume: str = "auto"  # auto, never, must
    goal: Monitor = field(default_factory=Monitor)

    def total_steps(self, batches_per_epoch):
        """Return the number of steps after which training is finished."""
        steps = self.train_epochs * batches_per_epoch
        return steps if self.max_train_steps is None else min(steps, self.max_train_steps)

    def limit(self, steps, batches_per_epoch):
        """Return the name of what ends the training after so many steps."""
        if steps < self.total_steps(batches_per_epoch):
            return "max_minutes"
        is_whole = steps == self.train_epochs * batches_per_epoch
        return "train_epochs" if is_whole else "max_train_steps"

    def check(self, total_steps, steps_per_update, metrics):
        """Return lines about what would have no effect in a training of so many steps.

        `metrics` are the names of those there are. Raises SettingsError for what can't be reached.
        """
        goal, steps = self.goal, counted(total_steps, "step")
        if goal.metric not in metrics:
            raise ChoiceError(unknown_name("metric", goal.metric, metrics))
        accumulation = f"gradient_accumulation_steps {steps_per_update}"
        if steps_per_update > total_steps:
            raise SettingsError(
                f"{accumulation}: the training has {steps} in all, so no weight would change"
            )
        left = total_steps % steps_per_update
        if left and self.max_minutes is None:
            last = counted(left, "step")
            yield f"{accumulation}: of {steps}, the gradients of the last {last} are left unused"
        if goal.plateau_patience and goal.patience and goal.patience <= goal.plateau_patience:
            yield (
                f"plateau_patience {goal.plateau_patience} has no effect: the training stops "
                f"first, with early_stopping_patience {goal.patience}"
            )


@dataclass(frozen=True)
class RunPaths:
    """Where a run keeps what, and what it writes beside the networks that it keeps."""

    run_dir: Path
    checkpoints: Path
    best: Path
    classes: tuple
    # Files for the snapshot, by name: the settings, and what it learns from.
    texts: dict
    # Key → value, to tell on a resume what has changed since.
    settings: dict

    @classmethod
    def below(cls, folder, classes):
        """Keep everything below one folder. `classes` are the class names, in label order."""
        folder = Path(folder)
        return cls(folder, folder / "checkpoints", folder / "best", tuple(classes), {}, {})
