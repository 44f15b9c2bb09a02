"""The command search."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from library.configuration.reader import HYPERPARAMETER_FILE, Settings
from library.configuration.schema import DEFAULT, Value, keys_of
from library.errors import (
    SettingsError,
    UserError,
    if_interrupted,
)
from library.files import write_file
from library.messages import counted, listed, unknown_name
from project.commands.setup import print_result, start_tensorflow
from project.commands.train import (
    decisive_settings,
    find_cluster,
    log_dry_run,
    read_training_data,
)
from project.commands.trial_training import (
    MILLISECONDS,
    PARAMETERS,
    TrialTraining,
    trial_folder,
    trial_settings,
)
from project.hyperparameters import Hyperparameters

logger = logging.getLogger(__name__)

# Metrics that each evaluation has.
_COMPUTED = ("loss", "accuracy")
# In the folder of the search, beside the folder of the trials' runs.
TABLE, BEST_SET, RESULT = "trials.csv", "best.yaml", "search.json"


def search(settings: Settings) -> None:
    """Train with many hyperparameters, and report which were the best; resume what was killed."""
    config = settings.project
    _check_settings(settings)
    from library.search.named_set import check_new_set
    from library.search.sampling import SearchPlan
    from library.search.storage import explain_storage_errors, open_study
    from library.search.trials import TrialQueue

    if config.write_set:
        check_new_set(_recipe_path(settings), config.write_set)
    directions = tuple(map(_direction, config.objectives or (config.best_metric,)))
    settings, objectives = _with_objectives(settings)
    with if_interrupted("No step is lost; run the same command again."), explain_storage_errors():
        splits = read_training_data(config)
        if settings.dry_run:
            _dry_run(settings, splits)
            return
        with closing(open_study(config.storage, Path(config.run_dir), directions)) as store:
            plan = SearchPlan(
                settings.domains,
                directions,
                config.sampler,
                config.pruner if len(objectives) == 1 else "none",
                config.random_seed,
                _evaluations(config),
                store.name,
            )
            limit = (
                min(config.trials, plan.grid_size()) if plan.sampler == "grid" else config.trials
            )
            store.check_description(
                _describe(settings, objectives, splits), "choose another --run_dir or --storage"
            )
            queue = TrialQueue(store, plan, limit)
            _run_trials(settings, splits, objectives, queue)
            print_result(report(settings, objectives, queue))


def _check_settings(settings: Settings) -> None:
    """Raise SettingsError for settings with which nothing can be searched."""
    config = settings.project
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            "search needs packages that are not installed: pip install '.[search]'"
        ) from None
    if not settings.domains:
        raise SettingsError(
            f"the set {config.hyperparameter_set} has no range to search: choose another "
            "--search_space, or write one, such as learning_rate: {log: [1e-4, 1e-2]}"
        )
    for name in ("model_dir", "best_model_dir", "checkpoint"):
        if settings.values[name].value is not None:
            raise SettingsError(f"{name}: each trial has its own, in run_dir; leave it out")
    if config.debug:
        raise SettingsError("debug overfits one batch: use it with train")
    if config.resume == "never":
        raise SettingsError("search always resumes: for a new study, choose another --run_dir")
    if find_cluster():
        raise SettingsError(
            "search trains each trial in one process: start the same command on each machine, "
            "without TF_CONFIG and SLURM_STEP_NUM_TASKS"
        )


def _with_objectives(settings: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Return the settings, whose best_metric is the objective if it is not set, and objectives."""
    config = settings.project
    objectives = config.objectives or (config.best_metric,)
    if len(objectives) > 2 or len({*objectives}) < len(objectives):
        raise SettingsError(f"objectives: name one or two, not {listed(objectives)}")
    metrics = [each for each in objectives if each not in (PARAMETERS, MILLISECONDS)]
    if not metrics:
        raise SettingsError("objectives: one of them must be a metric, such as accuracy")
    if settings.values["best_metric"].provenance == DEFAULT:
        settings = settings.with_values({"best_metric": Value(metrics[0], "objectives")})
    for name in metrics:
        if name not in (*_COMPUTED, settings.project.best_metric):
            raise SettingsError(f"objective {name} is not computed: it needs --best_metric {name}")
    if len(objectives) > 1 and settings.values["pruner"].provenance != DEFAULT:
        logger.info("With two objectives no trial is pruned")
    return settings, objectives


def _direction(objective: str) -> Literal["minimize", "maximize"]:
    from library.training.early_stopping import Monitor

    if objective in (PARAMETERS, MILLISECONDS):
        return "minimize"
    try:
        return "minimize" if Monitor(objective).mode == "min" else "maximize"
    except SettingsError:
        known = (*_COMPUTED, PARAMETERS, MILLISECONDS, "any best_metric")
        raise SettingsError(unknown_name("objective", objective, known)) from None


def _evaluations(config: Any) -> int | None:
    """Return the number of evaluations of a whole trial, if epochs alone decide it."""
    others = ("train_steps", "max_train_steps", "max_minutes", "steps_between_evals")
    if any(getattr(config, name) is not None for name in (*others, "eval_throttle_secs")):
        return None
    return -(-config.train_epochs // config.epochs_between_evals)


def _describe(
    settings: Settings, objectives: Sequence[str], splits: Sequence[Any]
) -> dict[str, Any]:
    """Return what all trials of a study share, as JSON values."""
    return {
        **decisive_settings(settings),
        **{name: domain.written for name, domain in settings.domains.items()},
        "objectives": list(objectives),
        "seeds": list(settings.project.seeds),
        "data": [getattr(each, "fingerprint", None) for each in splits],
    }


def _dry_run(settings: Settings, splits: Sequence[Any]) -> None:
    from project import assembly

    start_tensorflow(settings.project)
    values = {name: domain.first for name, domain in settings.domains.items()}
    first = trial_settings(settings, 0, values)
    log_dry_run(assembly.make_trainer(first, splits, assembly.start_devices(first)))


def _run_trials(
    settings: Settings, splits: Sequence[Any], objectives: Sequence[str], queue: Any
) -> None:
    """Train one trial after the other until none is left."""
    from library.search.trials import TrialLostError

    training = None
    while True:
        with queue.claimed() as trial:
            if trial is None:
                return
            if training is None:
                training = _start_training(settings, splits, objectives, queue)
            try:
                training.run(trial)
            except TrialLostError:
                logger.warning(f"trial {trial.number} was taken over by another worker")
        remove_checkpoints(settings, objectives, queue)


def _start_training(
    settings: Settings, splits: Sequence[Any], objectives: Sequence[str], queue: Any
) -> TrialTraining:
    """Start TensorFlow and its devices, for all trials."""
    start_tensorflow(settings.project)
    from project import assembly
    from project.data_defaults import log_if_pretrained_is_better

    log_if_pretrained_is_better(settings, splits[0])
    devices = assembly.start_devices(settings)
    return TrialTraining(settings, splits, objectives, queue, devices)


def remove_checkpoints(settings: Settings, objectives: Sequence[str], queue: Any) -> None:
    """Remove the checkpoints of finished trials, which nothing resumes from, except the best."""
    from library.search.results import read_results

    trials = queue.store.trials()
    best = {each.number for each in read_results(queue.plan, objectives, trials).front}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in best:
            for folder in trial_folder(settings, trial.number).rglob("checkpoints"):
                shutil.rmtree(folder, ignore_errors=True)


def report(settings: Settings, objectives: Sequence[str], queue: Any) -> dict[str, Any]:
    """Write the results of the finished trials.

    Args:
        settings: The settings of the command.
        objectives: Names of the objectives.
        queue: The TrialQueue.

    Returns:
        What goes to stdout.

    Raises:
        UserError: All trials failed.
    """
    from library.evaluation.evaluate import write_summary
    from library.search.named_set import append_set
    from library.search.page import write_page
    from library.search.results import describe_trial, read_results

    config, folder = settings.project, Path(settings.project.run_dir)
    results = read_results(queue.plan, objectives, queue.store.trials())
    write_file(folder / TABLE, results.table())
    best = [describe_trial(results, each) for each in results.front]
    for each in best:
        each["run_dir"] = str(trial_folder(settings, each["trial"]))
    counts = results.state_counts()
    states = ", ".join(f"{count} {name}" for name, count in counts.items())
    logger.info(f"{counted(len(results.trials), 'trial')}: {states}")
    if not best:
        reasons = [each.user_attrs.get("reason") for each in results.trials]
        last = next(filter(None, reversed(reasons)), f"see {folder / TABLE}")
        raise UserError(f"no trial was trained to the end ({states}): {last}")
    summary = {"study": queue.store.location, "trials": counts, "best": best}
    write_summary(folder / RESULT, summary)
    name = config.write_set or "best"
    sets = [_as_set(settings, name if n == 0 else f"{name}_{n}", e) for n, e in enumerate(best)]
    write_file(folder / BEST_SET, "\n".join(sets))
    page = write_page(folder, results, config.hyperparameter_set, sets[0])
    many = f"Pareto front of {len(best)} trials, the first of them" if len(best) > 1 else "Best"
    logger.info(f"{many}:\n{sets[0].rstrip()}\nWrote {page}, {folder / TABLE}, {folder / BEST_SET}")
    if config.write_set:
        append_set(_recipe_path(settings), name, sets[0])
        logger.info(f"Added the set {name} to {_recipe_path(settings)}")
    return summary


def _as_set(settings: Settings, name: str, best: Mapping[str, Any]) -> str:
    """Return the hyperparameters of one of the best trials as a set in YAML."""
    from library.search.named_set import format_set
    from library.search.results import format_values

    comment = f"Found by search, trial {best['trial']}: {format_values(best['values'])}"
    return format_set(name, _all_values(settings, best["hyperparameters"]), comment)


def _all_values(settings: Settings, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that a set must have to repeat a trial, in their usual order."""
    keys = keys_of(Hyperparameters)
    values = {key.name: settings.values[key.name] for key in keys}
    return {
        name: found.get(name, each.value)
        for name, each in values.items()
        if name in found or each.provenance != DEFAULT
    }


def _recipe_path(settings: Settings) -> str:
    return settings.values["hyperparameter_file"].value or HYPERPARAMETER_FILE
