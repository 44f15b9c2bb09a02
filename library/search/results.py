"""The results of a study: the best trial or the Pareto front, a table, importances."""

import csv
import io
import json
import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from library.search.sampling import SearchPlan
from library.search.trials import REASON, RESULT, counts

logger = logging.getLogger(__name__)

# Trees disagree too much about fewer trials.
_MIN_IMPORTANCE_TRIALS = 4


@dataclass(frozen=True)
class StudyResults:
    """What a study has found so far.

    Attributes:
        plan: How it searches.
        objectives: Name of each objective.
        trials: The trials that were asked for, in order of their numbers.
    """

    plan: SearchPlan
    objectives: tuple[str, ...]
    trials: tuple[FrozenTrial, ...]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The trials that were trained to the end."""
        return [each for each in self.trials if each.state == TrialState.COMPLETE]

    @property
    def front(self) -> list[FrozenTrial]:
        """The best trials: one, or those that no other beats in all objectives, first to last."""
        found = [each for each in self.complete if not self._is_beaten(each)]
        return sorted(found, key=self._costs) if len(self.objectives) > 1 else found[:1]

    def _costs(self, trial: FrozenTrial) -> list[float]:
        signs = [1 if each == "minimize" else -1 for each in self.plan.directions]
        return [sign * value for sign, value in zip(signs, trial.values or (), strict=True)]

    def _is_beaten(self, trial: FrozenTrial) -> bool:
        costs = self._costs(trial)
        others = [self._costs(each) for each in self.complete]
        return any(
            all(one <= two for one, two in zip(other, costs, strict=True)) and other != costs
            for other in others
        )

    def state_counts(self) -> dict[str, int]:
        """Return state → number of trials, such as complete, pruned, failed, running."""
        return dict(Counter(map(state_name, self.trials)))

    def values_of(self, trial: FrozenTrial) -> dict[str, float]:
        """Return objective → value of a complete trial."""
        return dict(zip(self.objectives, trial.values or (), strict=True))

    def parameters_of(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return setting → value of a trial; {} if it has none yet."""
        known = trial.params.keys() >= self.plan.domains.keys()
        return self.plan.decode(trial.params) if known else {}

    def table(self) -> str:
        """Return a CSV table with a row for each trial."""
        results = [each.user_attrs.get(RESULT, {}) for each in self.trials]
        extra = [*dict.fromkeys(name for each in results for name in each)]
        # What is searched may have the name of a metric.
        settings = {name: f"setting_{name}" for name in self.plan.domains}
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["trial", "state", *settings.values(), *extra, "reason"])
        for trial, result in zip(self.trials, results, strict=True):
            parameters = self.parameters_of(trial)
            row = [trial.number, state_name(trial)]
            row += [_cell(parameters.get(name)) for name in settings]
            row += [_cell(result.get(name)) for name in extra]
            writer.writerow([*row, trial.user_attrs.get(REASON, "")])
        return out.getvalue()

    def importances(self, objective: int) -> dict[str, float]:
        """Return setting → share of an objective's variance that it explains, by fANOVA.

        Hutter, Hoos and Leyton-Brown 2014, An Efficient Approach for Assessing Hyperparameter
        Importance. {} with few trials, or if all have the same value.
        """
        trials, searched = self.complete, self.plan.distributions
        searched = {name: each for name, each in searched.items() if not each.single()}
        values = {(trial.values or ())[objective] for trial in trials}
        if len(trials) < _MIN_IMPORTANCE_TRIALS or len(values) < 2 or len(searched) < 1:
            return {}
        study = optuna.create_study(directions=self.plan.directions)
        for trial in trials:
            study.add_trial(trial)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=self.plan.seed),
                params=[*searched],
                target=lambda trial: trial.values[objective],
            )


def read_results(
    plan: SearchPlan, objectives: Sequence[str], trials: Sequence[FrozenTrial]
) -> StudyResults:
    """Return the results of a study's trials."""
    return StudyResults(plan, tuple(objectives), tuple(filter(counts, trials)))


def describe_trial(results: StudyResults, trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial as JSON values: its number, objectives, metrics and hyperparameters."""
    parameters = results.parameters_of(trial)
    return {
        "trial": trial.number,
        "values": results.values_of(trial),
        **trial.user_attrs.get(RESULT, {}),
        "hyperparameters": parameters,
    }


def format_values(values: Mapping[str, Any]) -> str:
    """Return names with their values, numbers with 4 digits: `dropout_rate 0.1234, …`."""
    return ", ".join(f"{name} {describe_value(value)}" for name, value in values.items())


def describe_value(value: Any) -> str:
    """Return a value for people: numbers with 4 digits, lists with commas, `none`."""
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (float, int)):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    return ",".join(value) if isinstance(value, tuple) else str(value)


def state_name(trial: FrozenTrial) -> str:
    """Return complete, pruned, failed, running or waiting."""
    return {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())


def _cell(value: Any) -> Any:
    is_plain = value is None or isinstance(value, (str, int, float))
    return value if is_plain else json.dumps(value)
