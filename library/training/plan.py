"""What a run is asked for: how long, how often what, and what is kept where."""

from dataclasses import dataclass, field
from pathlib import Path

from library.training.monitoring import Goal


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
    resume: str = "auto"  # auto, must
    goal: Goal = field(default_factory=Goal)

    def total_steps(self, batches_per_epoch):
        """Give the number of steps after which training is finished."""
        steps = self.train_epochs * batches_per_epoch
        return steps if self.max_train_steps is None else min(steps, self.max_train_steps)


@dataclass(frozen=True)
class Keeping:
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
