"""The command search."""

import contextlib
import gc
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from library.configuration.reader import HYPERPARAMETER_FILE, Settings
from library.configuration.schema import DEFAULT, Value, keys_of
from library.errors import (
    DivergedError,
    SettingsError,
    UserError,
    if_interrupted,
    is_out_of_memory,
)
from library.files import in_use, write_file
from library.messages import counted, listed
from project.commands.setup import print_result, start_tensorflow
from project.commands.train import (
    decisive_settings,
    find_cluster,
    log_dry_run,
    manifest_paths,
    read_training_data,
)
from project.hyperparameters import Hyperparameters
from project.settings import Search

logger = logging.getLogger(__name__)

# In the folder of the run, beside the folder of the trials' runs.
TRIALS, TABLE, BEST_SET, RESULT = "trials", "trials.csv", "best.yaml", "search.json"
# Objectives beside metrics of the validation split.
PARAMETERS, MILLISECONDS = "parameters", "milliseconds"


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
    settings, objectives = _with_objectives(settings)
    directions = tuple(map(_direction, objectives))
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
        if name not in ("loss", "accuracy", settings.project.best_metric):
            raise SettingsError(f"objective {name} is not computed: it needs --best_metric {name}")
    if len(objectives) > 1 and settings.values["pruner"].provenance != DEFAULT:
        logger.info("With two objectives no trial is pruned")
    return settings, objectives


def _direction(objective: str) -> Literal["minimize", "maximize"]:
    from library.training.early_stopping import Monitor

    if objective in (PARAMETERS, MILLISECONDS):
        return "minimize"
    return "minimize" if Monitor(objective).mode == "min" else "maximize"


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
        "data": [getattr(each, "fingerprint", None) for each in splits],
    }


def _trial_settings(settings: Settings, number: int, values: Mapping[str, Any]) -> Settings:
    """Return the settings of a trial's run: a training like any other, with shared caches."""
    config, origin = settings.project, f"trial {number}"
    plain = {key.name: Value(key.default, DEFAULT) for key in keys_of(Search)}
    run_dir = f"{config.run_dir}/{TRIALS}/{number:04}"
    new = {"run_dir": run_dir, "cache_dir": config.cache_dir, "resume": "auto", **values}
    if settings.values["report"].provenance == DEFAULT:
        new["report"] = False
    return settings.with_values({**plain, **{k: Value(v, origin) for k, v in new.items()}})


def _dry_run(settings: Settings, splits: Sequence[Any]) -> None:
    from project import assembly

    start_tensorflow(settings.project)
    values = {name: domain.first for name, domain in settings.domains.items()}
    first = _trial_settings(settings, 0, values)
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
                start_tensorflow(settings.project)
                training = TrialTraining.start(settings, splits, objectives, queue)
            try:
                training.run(trial)
            except TrialLostError:
                logger.warning(f"trial {trial.number} was taken over by another worker")
        remove_checkpoints(settings, objectives, queue)


@dataclass
class TrialTraining:
    """Trains trials in this process."""

    settings: Settings
    splits: Sequence[Any]
    objectives: Sequence[str]
    queue: Any
    devices: Any

    @classmethod
    def start(
        cls, settings: Settings, splits: Sequence[Any], objectives: Sequence[str], queue: Any
    ) -> "TrialTraining":
        """Start the devices, for all trials."""
        from project import assembly
        from project.data_defaults import log_if_pretrained_is_better

        log_if_pretrained_is_better(settings, splits[0])
        return cls(settings, splits, objectives, queue, assembly.start_devices(settings))

    def run(self, trial: Any) -> None:
        """Train a trial, from wherever it was interrupted, and record what became of it.

        Raises:
            UserError: For what no other trial would do better.
        """
        from library.search.results import format_values
        from library.search.trials import MAX_STARTS

        queue = self.queue
        values = queue.plan.decode(trial.params)
        folder = Path(self.settings.project.run_dir, TRIALS, f"{trial.number:04}")
        if not queue.was_started(trial) and folder.is_dir():
            raise SettingsError(f"{folder} belongs to another study: choose another --run_dir")
        logger.info(f"Trial {trial.number} ({queue.limit} in all): {format_values(values)}")
        try:
            settings = _trial_settings(self.settings, trial.number, values)
            if queue.count_start(trial, _progress(settings)) >= MAX_STARTS:
                queue.fail(
                    trial,
                    f"its process ended {MAX_STARTS} times without progress, perhaps because "
                    "memory ran out",
                )
                return
            self._train(trial, settings)
        except SettingsError as error:
            # Of the trial's values, unless no trial could be better.
            if not any(name in str(error) for name in values) and not self._has_trained():
                raise
            queue.fail(trial, str(error))
        except DivergedError as error:
            queue.fail(trial, str(error))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            queue.fail(trial, "out of memory")
            _free_memory()

    def _has_trained(self) -> bool:
        return any(each.intermediate_values or each.values for each in self.queue.store.trials())

    def _train(self, trial: Any, settings: Settings) -> None:
        import keras

        from library.inputs.corruption import explain_read_errors
        from library.search.results import format_values
        from library.search.sampling import Pruning
        from library.search.trials import PrunedError
        from project import assembly

        # Layers get the names that they would have in a process of their own.
        keras.utils.clear_session(free_memory=False)
        pruning = Pruning(self.queue.plan, trial.number)
        metric = next(e for e in self.objectives if e not in (PARAMETERS, MILLISECONDS))
        listener = _listener(lambda value: self.queue.report(trial, pruning, value), metric)
        trainer = assembly.make_trainer(settings, self.splits, self.devices, listeners=[listener])
        is_pruned = False
        with in_use(manifest_paths(self.splits)), explain_read_errors(*trainer.inputs):
            try:
                trainer.fit()
            except PrunedError:
                is_pruned = True
        rows = trainer.state.rows
        best = _best_row(rows, trainer.plan.monitor)
        parameters = trainer.parts.network.count_params()
        result = {
            **{f"validation_{name}": best[f"validation_{name}"] for name in _metrics(best)},
            "best_epoch": best["epoch"],
            "epochs": rows[-1]["epoch"],
            "parameters": parameters,
            "seconds": round(trainer.timetable.elapsed, 1),
        }
        if is_pruned:
            values = [rows[-1][f"validation_{metric}"]]
            logger.info(f"Trial {trial.number} is pruned in epoch {rows[-1]['epoch']}")
        else:
            values = [self._value(each, best, trainer) for each in self.objectives]
            found = format_values(dict(zip(self.objectives, values, strict=True)))
            logger.info(f"Trial {trial.number}: {found}")
        self.queue.finish(trial, values, result, is_pruned=is_pruned)

    def _value(self, objective: str, best: Mapping[str, Any], trainer: Any) -> float:
        if objective == PARAMETERS:
            return float(trainer.parts.network.count_params())
        if objective == MILLISECONDS:
            return _milliseconds(trainer.parts.network)
        return best[f"validation_{objective}"]


def _listener(report: Callable[[float], bool], metric: str) -> Any:
    """Return what reports evaluations, and ends a training that is pruned.

    Args:
        report: Takes a metric, and returns whether to prune.
        metric: Its name.
    """
    from library.search.trials import PrunedError
    from library.training.listeners import Evaluation, Listener, Run

    class Reporter(Listener):
        def on_start(self, run: Run) -> None:
            super().on_start(run)
            # What was reported before the interruption, so that decisions are the same.
            for row in run.state.rows:
                report(row[f"validation_{metric}"])

        def on_evaluation(self, evaluation: Evaluation) -> None:
            is_pruned = report(evaluation.validation[metric])
            if is_pruned and not self.run.timetable.is_finished(self.run.state):
                raise PrunedError

    return Reporter()


def _best_row(rows: Sequence[Mapping[str, Any]], monitor: Any) -> Mapping[str, Any]:
    """Return the evaluation of the best snapshot: by the values as they were first computed."""
    best, metrics = rows[0], None
    for row in rows:
        values = {name: row[f"validation_{name}"] for name in _metrics(row)}
        if monitor.is_best(values, metrics):
            best, metrics = row, values
    return best


def _metrics(row: Mapping[str, Any]) -> list[str]:
    return [each.removeprefix("validation_") for each in row if each.startswith("validation_")]


def _milliseconds(network: Any) -> float:
    """Return the milliseconds that a network takes for an image alone: the best of a few."""
    from library.describing.network_summary import time_per_image

    return 1000 * min(time_per_image(network, 1) for _ in range(3))


def _progress(settings: Settings) -> str:
    """Return what changes when a trial's training proceeds."""
    from library.saving.checkpoints import Checkpoints

    found = Checkpoints(settings.project.model_dir).paths()
    return found[0].name if found else ""


def _free_memory() -> None:
    import keras

    gc.collect()
    keras.utils.clear_session()


def remove_checkpoints(settings: Settings, objectives: Sequence[str], queue: Any) -> None:
    """Remove the checkpoints of finished trials, which nothing resumes from, except the best."""
    from library.search.results import read_results

    trials = queue.store.trials()
    best = {each.number for each in read_results(queue.plan, objectives, trials).front}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in best:
            folder = Path(settings.project.run_dir, TRIALS, f"{trial.number:04}", "checkpoints")
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)


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
        each["run_dir"] = f"{config.run_dir}/{TRIALS}/{each['trial']:04}"
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
