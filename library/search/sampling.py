"""What a trial tries, and whether to prune it: functions of a seed and of what is known.

Optuna's samplers and pruners write into the study that they are asked about, step by step. Here
they are asked about a copy of it in memory, in which each trial has the number that it has in the
study. So what a killed process had begun to store does not change the answer of the next one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from library.configuration.search_space import Domain
from library.configuration.yaml_parser import to_yaml
from library.errors import SettingsError

Direction = Literal["minimize", "maximize"]
# Hyperband and median: no trial is pruned before this share of its evaluations.
_WARMUP_SHARE = 0.1
# Attributes by which Hyperband remembers how good a trial was at each rung.
_RUNG = "completed_rung_"


@dataclass(frozen=True)
class SearchPlan:
    """How to search.

    Attributes:
        domains: Setting → its values.
        directions: "minimize" or "maximize" for each objective.
        sampler: tpe, random, grid or cmaes.
        pruner: none, median or hyperband.
        seed: What the suggestions depend on, beside the trials before.
        evaluations: Number of evaluations of a whole trial; None if it is not known before.
        study_name: The study's name, by which Hyperband divides trials among its brackets.
    """

    domains: Mapping[str, Domain]
    directions: tuple[Direction, ...]
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    evaluations: int | None = None
    study_name: str = "search"

    def __post_init__(self) -> None:
        if self.sampler == "cmaes" and len(self.directions) > 1:
            raise SettingsError("sampler cmaes takes one objective: use tpe or random")
        if self.sampler == "grid":
            self.grid_size()

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Setting → its values as Optuna has them."""
        return {name: make_distribution(each) for name, each in self.domains.items()}

    def grid_size(self) -> int:
        """Return the number of combinations. Raise SettingsError if there is no end of them."""
        size = 1
        for name, domain in self.domains.items():
            values = domain.values()
            if values is None:
                raise SettingsError(
                    f"sampler grid needs {{choices: [a, b]}} or a step for {name}, not "
                    f"{to_yaml(domain.written)}"
                )
            size *= len(values)
        return size

    def suggest(self, earlier: Sequence[FrozenTrial]) -> FrozenTrial:
        """Return what the next trial tries: a function of the seed and of the earlier trials."""
        study = self._copy_of(earlier, self._make_sampler(len(earlier)))
        trial = study.ask(self.distributions)
        return study.get_trials()[trial.number]

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of settings that Optuna's parameters stand for."""
        return {name: _decode(self.domains[name], params[name]) for name in self.domains}

    def make_pruner(self) -> optuna.pruners.BasePruner:
        """Return Optuna's pruner; a resource is one evaluation."""
        warmup = max(1, round(_WARMUP_SHARE * (self.evaluations or 0)))
        if self.pruner == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warmup)
        if self.pruner == "hyperband":
            longest = self.evaluations or "auto"
            return optuna.pruners.HyperbandPruner(min_resource=warmup, max_resource=longest)
        return optuna.pruners.NopPruner()

    def _make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.sampler == "grid":
            # One order for all trials.
            grid = {
                name: [_encode(each) for each in domain.values() or ()]
                for name, domain in self.domains.items()
            }
            return optuna.samplers.GridSampler(grid, seed=self.seed)
        if self.sampler == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _copy_of(
        self,
        trials: Sequence[FrozenTrial],
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
    ) -> optuna.Study:
        """Return a study in memory with the same trials, numbered alike."""
        study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(),
            study_name=self.study_name,
            directions=self.directions,
            sampler=sampler or optuna.samplers.RandomSampler(seed=0),
            pruner=pruner,
        )
        for each in trials:
            study.add_trial(_as_running(each) if each.state == TrialState.WAITING else each)
        return study


class Pruning:
    """Decides evaluation by evaluation whether to prune one trial."""

    def __init__(self, plan: SearchPlan, number: int) -> None:
        self._plan, self._number = plan, number
        self._values: list[float] = []
        self.rungs: dict[str, Any] = {}  # the attributes of the trial that the pruner has set

    @property
    def evaluations(self) -> int:
        """Number of evaluations so far."""
        return len(self._values)

    def should_prune(self, value: float, trials: Sequence[FrozenTrial]) -> bool:
        """Add the next evaluation. Return whether the trial should end with it.

        Args:
            value: The first objective's metric.
            trials: All trials, this one among them; what it has stored is not looked at.
        """
        self._values.append(value)
        pruner = self._plan.make_pruner()
        own = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=trials[self._number].params,
            distributions=trials[self._number].distributions,
            system_attrs=self.rungs,
            intermediate_values=dict(enumerate(self._values, 1)),
        )
        others = [*trials[: self._number], own, *trials[self._number + 1 :]]
        study = self._plan._copy_of(others, pruner=pruner)
        is_pruned = pruner.prune(study, study.get_trials(deepcopy=False)[self._number])
        attributes = study.get_trials(deepcopy=False)[self._number].system_attrs
        self.rungs = {name: each for name, each in attributes.items() if name.startswith(_RUNG)}
        return is_pruned


def make_distribution(domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution over a domain."""
    if domain.choices:
        return CategoricalDistribution([_encode(each) for each in domain.choices])
    options = {"log": domain.is_log, "step": domain.step}
    if isinstance(domain.low, int):
        return IntDistribution(domain.low, domain.high, **{**options, "step": domain.step or 1})
    return FloatDistribution(domain.low, domain.high, **options)


def _encode(value: Any) -> Any:
    """Return a value as Optuna stores it: a list as its text in YAML."""
    return to_yaml(value) if isinstance(value, tuple) else value


def _decode(domain: Domain, value: Any) -> Any:
    # Compared with the type, because 1 equals true.
    same = (
        each
        for each in domain.choices
        if (type(_encode(each)), _encode(each)) == (type(value), value)
    )
    return next(same) if domain.choices else value


def _as_running(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial that waits to be run again as one that runs: no other should try the same."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
    )
