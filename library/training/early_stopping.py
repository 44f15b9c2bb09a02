"""Is it better than before? What the best, early stopping and a plateau are judged by."""

import math
from dataclasses import dataclass

from library.errors import SettingsError
from library.messages import counted

# Which direction of a metric is better. Of another metric, the goal must say it.
_MODES = {"loss": "min", "accuracy": "max", "exact_match": "max"}


@dataclass(frozen=True)
class Monitor:
    """What to watch: a metric of the validation split, and which direction is better."""

    metric: str = "loss"
    mode: str | None = None  # min, max; None: what the metric says
    # Smaller improvements do not count for patience.
    min_delta: float = 0.0
    # Evaluations in a row without improvement after which to stop; None: never.
    patience: int | None = None
    # Evaluations in a row without improvement after which to multiply the learning rate.
    plateau_patience: int | None = None
    plateau_factor: float = 0.1
    # Validation accuracy at which to stop; None: never.
    stop_threshold: float | None = None

    def __post_init__(self):
        """Let the mode follow the metric. Raises SettingsError where it can't, or contradicts."""
        known = _MODES.get(self.metric)
        mode = self.mode or known
        if mode is None:
            raise SettingsError(
                f"metric {self.metric!r}: say whether less or more of it is better, mode min or "
                f"max; known is that of {', '.join(sorted(_MODES))}"
            )
        if mode != (known or mode):
            raise SettingsError(
                f"best_metric_mode {mode} would keep the worst: the best {self.metric} is its "
                f"{known}; leave out the mode"
            )
        # The goal is frozen for everyone else; here it is still being made.
        object.__setattr__(self, "mode", mode)

    def is_better(self, value, than, by=0.0):
        """Return whether `value` beats `than` by more than `by`: never for NaN, always for None."""
        if math.isnan(value):
            return False
        if than is None:
            return True
        return value < than - by if self.mode == "min" else value > than + by


class EarlyStopping:
    """Counts evaluations without improvement. All of it is in `state`, for checkpoints."""

    def __init__(self, goal):
        self.goal = goal
        self.state = {"reference": None, "without_improvement": 0, "on_plateau": 0, "stopped": None}

    @property
    def stopped(self):
        """Why the training is over before its time, or None."""
        return self.state["stopped"]

    def judge(self, validation):
        """Take the metrics of one evaluation. Say whether the learning rate should fall now."""
        goal, state = self.goal, self.state
        value = validation[goal.metric]
        if goal.is_better(value, state["reference"], goal.min_delta):
            state.update(reference=value, without_improvement=0, on_plateau=0)
        else:
            state["without_improvement"] += 1
            state["on_plateau"] += 1
        if goal.patience is not None and state["without_improvement"] >= goal.patience:
            evaluations = counted(state["without_improvement"], "evaluation")
            state["stopped"] = f"no better validation {goal.metric} in {evaluations}"
        accuracy = validation.get("accuracy", math.nan)
        if goal.stop_threshold is not None and accuracy >= goal.stop_threshold:
            state["stopped"] = f"validation accuracy {accuracy:.4f} reached {goal.stop_threshold}"
        if goal.plateau_patience is None or state["on_plateau"] < goal.plateau_patience:
            return False
        state["on_plateau"] = 0
        return True
