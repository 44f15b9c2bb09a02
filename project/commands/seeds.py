"""`--seeds 0,1,2`: train, cross_validate or evaluate once for each seed, as one experiment.

Each seed has a run, `<run_dir>/seed_0`, that is what a process of its own with `--random_seed 0`
would make, and resumes like any other. All share the caches of `<run_dir>`.
"""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.configuration.schema import COMMAND_LINE, DEFAULT, Value
from library.errors import DivergedError, SettingsError, if_interrupted
from project.commands.setup import follow_fold, print_result, start_tensorflow
from project.commands.train import (
    decisive_settings,
    find_cluster,
    read_training_data,
    train_splits,
)

logger = logging.getLogger(__name__)

# The metrics of a seed's run, and what they are metrics of, for JSON.
Result = dict[str, Any]


def is_repeated(settings: Settings, command: str) -> bool:
    """Return whether a command is run for each of the seeds. Seeds in a file are for these only.

    Raises:
        SettingsError: The command line has seeds, and the command takes none.
    """
    if command not in COMMANDS and settings.values["seeds"].provenance == COMMAND_LINE:
        raise SettingsError(f"seeds has no effect on {command}: leave it out")
    return command in COMMANDS


def repeat(settings: Settings, command: str) -> None:
    """Run a command once for each of the seeds, and report the metrics over all of them.

    Args:
        settings: The settings; `seeds` is not empty.
        command: The command, one of COMMANDS.

    Raises:
        SettingsError: Settings exclude each other.
        DivergedError: The training of a seed diverged; those of the others are finished.
    """
    _check_settings(settings)
    folder = Path(settings.project.run_dir)
    if settings.project.resume == "must" and any(folder.glob("seed_*/**/checkpoints/step_*")):
        # The experiment is there; a seed that comes later need not be.
        settings = settings.with_values({"resume": Value("auto", "seeds")})
    with if_interrupted("No step is lost; run the same command again."):
        run_seed = COMMANDS[command](settings)
        results, diverged = _run_seeds(settings, run_seed)
        if settings.dry_run:
            return
        print_result(_report(settings, results, diverged))
    if diverged:
        reasons = (f"seed {seed}: {reason}" for seed, reason in diverged.items())
        raise DivergedError("; ".join(reasons))


def seed_folder(run_dir: str | Path, seed: int) -> Path:
    """Return the folder of a seed's run in that of the experiment."""
    return Path(run_dir, f"seed_{seed}")


def with_seed(settings: Settings, seed: int) -> Settings:
    """Return the settings of a seed's run, which shares the caches of the others."""
    config, origin = settings.project, "seeds"
    new = {
        "random_seed": seed,
        "run_dir": str(seed_folder(config.run_dir, seed)),
        "cache_dir": config.cache_dir,
    }
    values = {name: Value(value, origin) for name, value in new.items()}
    return settings.with_values(values | {"seeds": Value((), DEFAULT)})


def _check_settings(settings: Settings) -> None:
    """Raise SettingsError for settings that exclude seeds."""
    config, values = settings.project, settings.values
    seed_origin = values["random_seed"].provenance
    # A seed in a file is the usual one, which the command line may replace by several.
    is_replaced = COMMAND_LINE == values["seeds"].provenance != seed_origin
    if seed_origin != DEFAULT and not is_replaced:
        raise SettingsError(
            f"random_seed {config.random_seed} and seeds exclude each other: leave one out"
        )
    for name in ("model_dir", "best_model_dir"):
        if values[name].value is not None:
            raise SettingsError(f"{name}: each seed has its own, in run_dir; leave it out")
    for name in ("checkpoint", "ensemble", "debug"):
        if getattr(config, name):
            raise SettingsError(f"{name} and seeds exclude each other: leave one out")
    if find_cluster():
        first = config.seeds[0]
        raise SettingsError(
            "seeds are trained in one process; to train one on several workers: --random_seed "
            f"{first} --run_dir {seed_folder(config.run_dir, first)}, and so on"
        )


def _run_seeds(
    settings: Settings, run_seed: Callable[[Settings], Result | None]
) -> tuple[dict[int, Result], dict[int, str]]:
    """Return the result of each seed, and a message for each one that diverged."""
    results, diverged = {}, {}
    seeds = settings.project.seeds
    for number, seed in enumerate(seeds, 1):
        current = with_seed(settings, seed)
        folder = current.project.run_dir
        logger.info(f"Seed {seed} ({number} of {len(seeds)}): {folder}")
        try:
            result = run_seed(current)
        except DivergedError as error:
            diverged[seed] = str(error)
            logger.warning(f"seed {seed} diverged: {error}")
            continue
        if result is None:  # a dry run, which all seeds have in common
            break
        results[seed] = {"run_dir": folder, **result}
    return results, diverged


def _train(settings: Settings) -> Callable[[Settings], Result | None]:
    splits = read_training_data(settings.project)
    start_tensorflow(settings.project)
    import keras

    from library.training.resume import check_same_training
    from project.input_assembly import with_native_size

    for seed in settings.project.seeds if settings.project.resume != "never" else ():
        current = with_native_size(with_seed(settings, seed))
        config, fingerprint = current.project, getattr(splits[0], "fingerprint", None)
        folders = Path(config.model_dir), Path(config.best_model_dir)
        check_same_training(config.run_dir, folders, decisive_settings(current), fingerprint)

    def train_seed(current: Settings) -> Result | None:
        # Layers get the names that they would have in a process of their own.
        keras.utils.clear_session(free_memory=False)
        best = train_splits(current, splits)
        if best is None:
            return None
        # NaN: undefined, as for a class without images.
        metrics = {name: v if math.isfinite(v) else None for name, v in best["validation"].items()}
        folder = current.project.best_model_dir
        return {"snapshot": folder, "epoch": best["epoch"], "metrics": metrics}

    return train_seed


def _cross_validate(settings: Settings) -> Callable[[Settings], Result | None]:
    from project.commands.cross_validate import cross_validate_folds

    def cross_validate_seed(current: Settings) -> Result | None:
        result = cross_validate_folds(current)
        if result is None:
            return None
        means = {name: each["mean"] for name, each in result["metrics"].items()}
        return {name: result[name] for name in ("missing_folds", "top_k")} | {"metrics": means}

    return cross_validate_seed


def _evaluate(settings: Settings) -> Callable[[Settings], Result | None]:
    from library.evaluation.table import metric_names
    from project.commands.evaluate import evaluate_once

    def evaluate_seed(current: Settings) -> Result:
        summary = evaluate_once(follow_fold(current))
        names = ("split", "images", "snapshot", "epoch", "top_k")
        metrics = {name: summary[name] for name in metric_names(summary)}
        return {name: summary[name] for name in names} | {"metrics": metrics}

    return evaluate_seed


# The commands that can be repeated, and what prepares each: it returns what runs it for a seed.
COMMANDS: Mapping[str, Callable[[Settings], Callable[[Settings], Result | None]]] = {
    "train": _train,
    "cross_validate": _cross_validate,
    "evaluate": _evaluate,
}


def _report(
    settings: Settings, results: Mapping[int, Result], diverged: Mapping[int, str]
) -> dict[str, Any]:
    """Write seeds.json, or seeds.test.json after an evaluation, log a table, and return both."""
    from library.evaluation.evaluate import write_summary
    from library.evaluation.repeated_runs import format_summaries, summarize_metrics

    entries = list(results.values())
    content = {
        "seeds": [{"seed": seed, **each} for seed, each in results.items()],
        "diverged": [{"seed": seed, "error": error} for seed, error in diverged.items()],
        **summarize_metrics([each["metrics"] for each in entries]),
    }
    split = {each["split"] for each in entries if "split" in each}
    path = Path(settings.project.run_dir, ".".join(["seeds", *split, "json"]))
    write_summary(path, content)
    top_k = next((each["top_k"] for each in entries if "top_k" in each), None)
    for line in format_summaries(content, top_k):
        logger.info(line)
    logger.info(f"wrote {path}")
    return content
