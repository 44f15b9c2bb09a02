"""The metrics of runs by name, which of two values is better, and the order of runs."""

import math
from collections.abc import Iterable, Sequence

from library.messages import ChoiceError, unknown_name
from library.reporting.runs import Run

_TIME, _SPEED, _PARAMETERS = "time", "images/s", "parameters"
_TEST = "test "
# Words that start the names of metrics of which less is better, or end them.
_LESS_IS_BETTER = ("loss", "ece", _TIME, _PARAMETERS, "epoch")


def metrics_of(run: Run) -> dict[str, float]:
    """Return the known metrics of a run: `accuracy` on validation, `test accuracy`, `time`, …."""
    values = {
        **run.best["validation"],
        **{f"{_TEST}{name}": value for name, value in run.test_metrics.items()},
        "epoch": run.best.get("epoch"),
        _TIME: run.seconds,
        _SPEED: run.images_per_second,
        _PARAMETERS: run.parameters,
    }
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def find_metric(name: str | None, runs: Sequence[Run]) -> str:
    """Return the name of the metric to sort runs by.

    Args:
        name: As people write it, such as `Test_accuracy` or `validation macro_f1`; None: the
            metric that selected the best snapshots.
        runs: The runs.

    Raises:
        ChoiceError: No run has such a metric.
    """
    if name is None:
        return ranking_metric(runs)
    known = {_plain(each): each for run in runs for each in metrics_of(run)}
    if _plain(name) not in known:
        raise ChoiceError(unknown_name("metric to sort by", name, known.values()))
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").removeprefix("validation ").strip()


def ranking_metric(runs: Iterable[Run]) -> str:
    """Return the validation metric to rank runs by: their `best_metric`, else accuracy.

    Accuracy, if they have different ones, or the loss.
    """
    monitored = monitored_metric(runs)
    return "accuracy" if monitored in (None, "loss") else monitored


def monitored_metric(runs: Iterable[Run]) -> str | None:
    """Return the `best_metric` of all runs; None if they have different ones."""
    monitored = {str(run.best["monitored"]).removeprefix("validation ") for run in runs}
    return monitored.pop() if len(monitored) == 1 else None


def is_less_better(metric: str, runs: Sequence[Run]) -> bool:
    """Return whether less of a metric is better; of an own metric, `best_metric_mode` tells."""
    mode = runs[0].settings.get("best_metric_mode")
    if mode == "min" and all(run.best["monitored"] == f"validation {metric}" for run in runs):
        return True
    return any(metric.removeprefix(_TEST).endswith(each) for each in _LESS_IS_BETTER)


def best_first(runs: Sequence[Run], metric: str) -> list[Run]:
    """Return the runs by a metric, the best first, then by validation loss.

    Runs without the metric come later, and those with --debug last: they are evaluated on the batch
    that they were trained on.
    """
    sign = 1 if is_less_better(metric, runs) else -1

    def rank(run: Run) -> tuple[bool, float, float]:
        values = metrics_of(run)
        value = sign * values[metric] if metric in values else math.inf
        return is_debug(run), value, values.get("loss", 0.0)

    return sorted(runs, key=rank)


def format_value(metric: str, value: float | None) -> str:
    """Return a value of a metric for people: four decimals, a duration, or a count."""
    if value is None:
        return "-"
    if metric == _TIME:
        minutes, seconds = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"
    return f"{value:,.0f}" if metric in ("epoch", _SPEED, _PARAMETERS) else f"{value:.4f}"


def is_debug(run: Run) -> bool:
    """Return whether a run overfitted one batch, so that its results can't be compared."""
    return run.settings.get("debug") == "true"
