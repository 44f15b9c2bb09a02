"""The command evaluate."""

import hashlib
import logging
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

from library.configuration.output import read_resolved
from library.configuration.reader import Settings
from library.errors import SettingsError
from library.messages import counted
from project.commands.setup import (
    data_name,
    data_paths,
    find_validation,
    print_result,
    read_data,
    start_tensorflow,
)

logger = logging.getLogger(__name__)


def evaluate(settings: Settings) -> None:
    """Evaluate a snapshot on a split: JSON on stdout and in a file, a table, an HTML report."""
    print_result(evaluate_once(settings))


def evaluate_once(settings: Settings) -> dict[str, Any]:
    """Evaluate a snapshot on the split that the settings choose, and return what is printed."""
    config = settings.project
    split_name = "validation" if config.validate_only else config.split
    (split,) = read_data(config, split_name)
    validation_split = split if split_name == "validation" else find_validation(config)
    start_tensorflow(config)
    return evaluate_split(settings, split, validation_split)


def evaluate_split(settings: Settings, split: Any, validation_split: Any) -> dict[str, Any]:
    """Evaluate a snapshot on a split, log a table, and write the JSON and the HTML report.

    Args:
        settings: The settings.
        split: The split, as `read_data` returns it.
        validation_split: The split that the temperature is fitted on, perhaps `split` itself;
            None: no temperature.

    Returns:
        The metrics and what they are metrics of.
    """
    config = settings.project
    from library.evaluation.evaluate import (
        EVALUATION_FOLDER,
        describe_scope,
        summarize,
        warn_on_error,
        write_results,
    )
    from library.evaluation.table import format_metrics
    from library.training.tensorboard import write_test_metrics
    from project import load_network

    robustness = _import_robustness() if config.slices or config.corruptions else None
    table = robustness.read_table(config) if robustness else {}
    snapshot = load_network.read_chosen_snapshot(settings)
    inputs = load_network.make_inputs_for(snapshot, settings, split)
    validation = inputs
    if validation_split is not split:
        validation = validation_split and load_network.make_inputs_for(
            snapshot, settings, validation_split
        )
    result = load_network.evaluate_snapshot(settings, snapshot, inputs, validation)
    for line in format_metrics(result.metrics):
        logger.info(line)
    is_own = is_own_data(config) and not load_network.has_other_training_images(snapshot, config)
    summary = summarize(result, split, data_dir=data_name(config), is_own_data=is_own)
    scope = (counted(summary["images"], "image"), _network(config, summary))
    logger.info(
        "%s accuracy %.4f, loss %.4f; %s",
        *(split.name, summary["accuracy"], summary["loss"]),
        "; ".join((*scope, *describe_scope(summary))),
    )
    more = robustness.measure_robustness(settings, split, result, table) if robustness else {}
    summary |= more
    name = config.validation_name or file_name(config, summary)
    folder = Path(config.run_dir, EVALUATION_FOLDER)
    splits = tuple({each.name: each for each in (split, validation_split) if each}.values())
    with warn_on_error("the evaluation"):
        for part in ("slices", "corruptions"):
            for earlier in folder.glob(f"{escape(name)}.{part}.*"):
                earlier.unlink()  # It may be of another snapshot.
        write_results(folder / f"{name}.json", result, summary)
        if robustness:
            robustness.write_robustness(folder / f"{name}.json", more)
        if name == "test":
            metrics = {key: value for key, value in summary.items() if isinstance(value, float)}
            write_test_metrics(Path(config.run_dir), metrics, snapshot.metrics["step"])
            _track(config.run_dir, metrics, snapshot.metrics["step"])
        _write_report(config, folder / f"{name}.html", result, summary, splits)
    return summary


def file_name(config: Any, summary: dict) -> str:
    """Return the name of the evaluation's files, without a suffix.

    It is the split's name only for the best snapshot, the whole split and the run's own data;
    anything else gets a name of its own, so that no result replaces another.
    """
    words = [summary["split"]]
    if config.checkpoint:
        words.append(_with_hash(Path(config.checkpoint).name, [config.checkpoint]))
    if config.ensemble:
        words.append(_with_hash("ensemble", config.ensemble))
    if not _is_recorded(config, "best_model_dir", str(Path(config.run_dir, "best"))):
        words.append(_with_hash(Path(config.best_model_dir).name, [config.best_model_dir]))
    if config.tta > 1:
        words.append(f"tta{config.tta}")
    if not summary["data"]["is_own"]:
        paths = data_paths(vars(config))
        words.append(_with_hash(Path(paths[0]).name, paths))
    if summary["images"] < summary["images_in_split"]:
        words.append(f"first{summary['images']}")
    return "-".join(words)


def is_own_data(config: Any) -> bool:
    """Return whether the data is that of the run in run_dir; True if the run does not tell."""
    recorded = read_resolved(Path(config.run_dir, "project.yaml"))
    if recorded.get("fold", config.fold) != config.fold:
        return False
    given = (data_paths({"data_dir": config.data_dir, **recorded}), data_paths(vars(config)))
    own, paths = ([Path(each).resolve() for each in words] for words in given)
    return own == paths


def _is_recorded(config: Any, name: str, default: str) -> bool:
    """Return whether a setting names the same folder as it did for the run in run_dir.

    Args:
        config: The settings of project.yaml.
        name: The setting.
        default: The folder if the run does not tell, or names none.
    """
    recorded = read_resolved(Path(config.run_dir, "project.yaml")).get(name) or default
    return Path(str(recorded)).resolve() == Path(getattr(config, name)).resolve()


def _with_hash(name: str, paths: Sequence[str]) -> str:
    """Return a name followed by a hash of paths."""
    content = "\n".join(str(Path(each).resolve()) for each in paths)
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def _network(config: Any, summary: dict) -> str:
    if config.ensemble:
        return f"ensemble: {', '.join(config.ensemble)}"
    kind = "snapshot" if config.checkpoint else "best snapshot"
    return f"{kind}: {summary['snapshot']}, epoch {summary['epoch']}"


def _import_robustness() -> Any:
    """Return the module, or raise SettingsError if library/robustness was deleted."""
    try:
        from project import robustness
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library."):
            raise
        raise SettingsError(
            f"slices and corruptions need {error.name}, which was deleted"
        ) from None
    return robustness


def _track(run_dir: str, metrics: dict[str, float], step: int) -> None:
    """Report test metrics to the run's trackers, unless library/tracking was deleted."""
    try:
        from project.trackers import log_test_metrics
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library."):
            raise
    else:
        log_test_metrics(run_dir, metrics, step)


def _write_report(config: Any, page: Path, result: Any, summary: dict, splits: tuple) -> None:
    """Write the page, unless library/reporting was deleted."""
    from library.figures.html import link_pages

    try:
        from library.reporting.report import write_report
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.reporting"):
            raise
        logger.info("no HTML report: library/reporting is not installed")
        return
    run_dir = None if config.checkpoint else Path(config.run_dir)
    write_report(page, result, summary, splits, run_dir)
    link_pages(config.run_dir)
