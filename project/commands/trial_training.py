"""The trainings of `search`: one trial, with one seed or several, and what became of it."""

import gc
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.configuration.schema import DEFAULT, Value, keys_of
from library.errors import DivergedError, SettingsError, is_out_of_memory
from library.files import in_use
from project.commands.seeds import with_seed
from project.commands.train import manifest_paths
from project.settings import Search

logger = logging.getLogger(__name__)

# Objectives beside metrics of the validation split.
PARAMETERS, MILLISECONDS = "parameters", "milliseconds"


def trial_folder(settings: Settings, number: int) -> Path:
    """Return the folder of a trial: its run, or the runs of its seeds."""
    return Path(settings.project.run_dir, "trials", f"{number:04}")


def trial_settings(settings: Settings, number: int, values: Mapping[str, Any]) -> Settings:
    """Return the settings of a trial's run: a training like any other, with shared caches.

    Args:
        settings: The settings of the search.
        number: The trial's number.
        values: The hyperparameters that it tries.
    """
    plain = {key.name: Value(key.default, DEFAULT) for key in keys_of(Search)}
    new: dict[str, Any] = {"run_dir": str(trial_folder(settings, number)), "resume": "auto"}
    new |= {"seeds": (), "cache_dir": settings.project.cache_dir, **values}
    if settings.values["report"].provenance == DEFAULT:
        new["report"] = False
    origin = f"trial {number}"
    return settings.with_values({**plain, **{k: Value(v, origin) for k, v in new.items()}})


@dataclass(frozen=True)
class Trained:
    """A training that is over.

    Attributes:
        best: The row of the history that the best snapshot is of.
        last: The last row.
        network: The network.
        seconds: How long it took.
        is_pruned: Whether it was pruned.
    """

    best: Mapping[str, Any]
    last: Mapping[str, Any]
    network: Any
    seconds: float
    is_pruned: bool


@dataclass
class TrialTraining:
    """Trains trials in this process.

    Attributes:
        settings: The settings of the search.
        splits: The training and the validation split.
        objectives: Names of the objectives.
        queue: The TrialQueue.
        devices: What to train on.
    """

    settings: Settings
    splits: Sequence[Any]
    objectives: Sequence[str]
    queue: Any
    devices: Any

    def run(self, trial: Any) -> None:
        """Train a trial, from wherever it was interrupted, and record what became of it.

        Raises:
            UserError: For what no other trial would do better.
            TrialLostError: Another worker has taken it over.
        """
        from library.search.results import format_values
        from library.search.trials import MAX_STARTS

        queue, folder = self.queue, trial_folder(self.settings, trial.number)
        values = queue.plan.decode(trial.params)
        if not queue.was_started(trial) and folder.is_dir():
            raise SettingsError(f"{folder} belongs to another study: choose another --run_dir")
        logger.info(f"Trial {trial.number} ({queue.limit} in all): {format_values(values)}")
        try:
            if queue.count_start(trial, _progress(folder)) >= MAX_STARTS:
                queue.fail(
                    trial,
                    f"its process ended {MAX_STARTS} times without progress, perhaps because "
                    "memory ran out",
                )
                return
            self._train(trial, trial_settings(self.settings, trial.number, values))
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
        """Train once, or once for each of the seeds, and record the means."""
        from library.search.results import format_values
        from library.search.sampling import Pruning

        seeds = self.settings.project.seeds
        runs = [with_seed(settings, seed) for seed in seeds] or [settings]
        metric = next(each for each in self.objectives if each not in (PARAMETERS, MILLISECONDS))
        pruning = Pruning(self.queue.plan, trial.number)
        # What the first seed has shown decides whether the others are trained.
        listener = make_listener(lambda value: self.queue.report(trial, pruning, value), metric)
        found = [self._train_once(runs[0], [listener])]
        if not found[0].is_pruned:
            found += [self._train_once(each, []) for each in runs[1:]]
        result = {
            f"validation_{name}": _mean(f"validation_{name}", found)
            for name in metrics_of(found[0].best)
        }
        result |= {
            "best_epoch": found[0].best["epoch"],
            "epochs": found[0].last["epoch"],
            "parameters": found[0].network.count_params(),
            "seconds": round(sum(each.seconds for each in found), 1),
        }
        if found[0].is_pruned:
            values = [found[0].last[f"validation_{metric}"]]
            logger.info(f"Trial {trial.number} is pruned in epoch {found[0].last['epoch']}")
        else:
            values = [self._value(objective, found) for objective in self.objectives]
            shown = format_values(dict(zip(self.objectives, values, strict=True)))
            logger.info(f"Trial {trial.number}: {shown}")
        self.queue.finish(trial, values, result, is_pruned=found[0].is_pruned)

    def _train_once(self, settings: Settings, listeners: Sequence[Any]) -> Trained:
        import keras

        from library.inputs.corruption import explain_read_errors
        from library.search.trials import PrunedError
        from project import assembly

        # Layers get the names that they would have in a process of their own.
        keras.utils.clear_session(free_memory=False)
        trainer = assembly.make_trainer(settings, self.splits, self.devices, listeners=listeners)
        is_pruned = False
        with in_use(manifest_paths(self.splits)), explain_read_errors(*trainer.inputs):
            try:
                trainer.fit()
            except PrunedError:
                is_pruned = True
        rows = trainer.state.rows
        return Trained(
            best_row(rows, trainer.plan.monitor),
            rows[-1],
            trainer.parts.network,
            trainer.timetable.elapsed,
            is_pruned,
        )

    def _value(self, objective: str, found: Sequence[Trained]) -> float:
        if objective == PARAMETERS:
            return float(found[0].network.count_params())
        if objective == MILLISECONDS:
            return _milliseconds(found[0].network)
        return _mean(f"validation_{objective}", found)


def make_listener(report: Callable[[float], bool], metric: str) -> Any:
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


def best_row(rows: Sequence[Mapping[str, Any]], monitor: Any) -> Mapping[str, Any]:
    """Return the evaluation of the best snapshot, by the values as they were first computed.

    A resumed training evaluates the snapshot again, which rounds differently with cached features.

    Args:
        rows: The rows of the history.
        monitor: The Monitor of the training.
    """
    best, metrics = rows[0], None
    for row in rows:
        values = {name: row[f"validation_{name}"] for name in metrics_of(row)}
        if monitor.is_best(values, metrics):
            best, metrics = row, values
    return best


def metrics_of(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the validation metrics in a row of the history."""
    return [each.removeprefix("validation_") for each in row if each.startswith("validation_")]


def _mean(column: str, found: Sequence[Trained]) -> float:
    return statistics.fmean(each.best[column] for each in found)


def _milliseconds(network: Any) -> float:
    """Return the milliseconds that a network takes for an image alone: the best of a few."""
    try:
        from library.describing.network_summary import time_per_image
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library."):
            raise
        problem = f"objective {MILLISECONDS} needs {error.name}, which was deleted"
        raise SettingsError(problem) from None
    return 1000 * min(time_per_image(network, 1) for _ in range(3))


def _progress(folder: Path) -> str:
    """Return what changes when a trial's training proceeds: the names of its checkpoints."""
    found = folder.rglob("checkpoints/step_*")
    return " ".join(sorted(each.relative_to(folder).as_posix() for each in found))


def _free_memory() -> None:
    import keras

    gc.collect()
    keras.utils.clear_session()
