"""When a metric of the validation split improves: the best snapshot, early stopping, plateaus."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from library.errors import DataError, SettingsError
from library.messages import counted

_HIGHER_IS_BETTER = "accuracy balanced_accuracy exact_match macro_f1 macro_pr_auc macro_roc_auc"
# The better direction of each known metric, of recall:cat that of recall; for another one, the mode
# must be given.
_MODES = {
    "loss": "min",
    **dict.fromkeys((*_HIGHER_IS_BETTER.split(), "precision", "recall"), "max"),
}


@dataclass(frozen=True)
class Monitor:
    """The metric of the validation split to watch, and what counts as an improvement of it."""

    metric: str = "loss"
    mode: str | None = None  # min, max; None: the metric's usual direction
    # Smaller improvements do not count for patience.
    min_delta: float = 0.0
    # Evaluations in a row without improvement after which to stop; None: never.
    patience: int | None = None
    # Evaluations in a row without improvement after which to multiply the learning rate.
    plateau_patience: int | None = None
    plateau_factor: float = 0.1
    # Validation accuracy at which to stop; None: never.
    stop_threshold: float | None = None

    def __post_init__(self) -> None:
        usual = _MODES.get(self.metric.partition(":")[0])
        mode = self.mode or usual
        if mode is None:
            raise SettingsError(
                f"metric {self.metric!r} needs a mode, min or max; "
                f"known is that of {', '.join(sorted(_MODES))}"
            )
        if usual and mode != usual:
            raise SettingsError(
                f"best_metric_mode {mode} would save the worst network: the best {self.metric} is "
                f"its {usual}; omit the mode"
            )
        # Frozen for everyone else; here it is still being made.
        object.__setattr__(self, "mode", mode)

    def is_better(self, value: float, than: float | None, by: float = 0.0) -> bool:
        """Return whether `value` beats `than` by more than `by`; False for NaN.

        Any other value beats None and NaN.
        """
        if math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        return value < than - by if self.mode == "min" else value > than + by

    def check_defined(self, metrics: Mapping[str, float]) -> None:
        """Raise DataError if the metric is NaN, as that of a class without images is."""
        if math.isnan(metrics[self.metric]):
            raise DataError(
                f"validation {self.metric} is undefined: the evaluated images are too few or of "
                "one class; evaluate more (max_eval_steps), or choose another best_metric"
            )

    def is_best(self, metrics: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
        """Return whether metrics beat the best ones; the lower loss breaks a tie.

        Metrics of few images tie often, accuracy above all. A tie does not count for patience.
        """
        value = metrics[self.metric]
        than = best[self.metric] if best else None
        if not best or value != than:
            return self.is_better(value, than)
        # Version 0.1 may have stored no loss: what came first stays.
        return metrics.get("loss", math.inf) < best.get("loss", -math.inf)


@dataclass
class EarlyStopping:
    """The count of evaluations without improvement."""

    reference: float | None = None  # the value to improve on
    without_improvement: int = 0
    on_plateau: int = 0  # the same since the learning rate was last lowered
    stopped: str | None = None  # the reason to stop, once there is one

    def update(self, monitor: Monitor, validation: Mapping[str, float]) -> bool:
        """Count one evaluation. Return whether to lower the learning rate now."""
        value = validation[monitor.metric]
        if monitor.is_better(value, self.reference, monitor.min_delta):
            self.reference, self.without_improvement, self.on_plateau = value, 0, 0
        else:
            self.without_improvement += 1
            self.on_plateau += 1
        if monitor.patience is not None and self.without_improvement >= monitor.patience:
            evaluations = counted(self.without_improvement, "evaluation")
            self.stopped = f"validation {monitor.metric} did not improve in {evaluations}"
        accuracy = validation.get("accuracy", math.nan)
        if monitor.stop_threshold is not None and accuracy >= monitor.stop_threshold:
            self.stopped = f"validation accuracy {accuracy:.4f} reached {monitor.stop_threshold}"
        if monitor.plateau_patience is None or self.on_plateau < monitor.plateau_patience:
            return False
        self.on_plateau = 0
        return True
