"""The command cross_validate."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.configuration.schema import Value
from library.dataset.class_checks import check_trainable, log_lacking_classes
from library.dataset.folds import read_fold_splits, read_folds
from library.dataset.sources.base import fold_names
from library.errors import SettingsError, if_interrupted
from library.files import in_use
from library.messages import counted, listed
from project.commands.setup import data_name, print_result, start_tensorflow
from project.commands.train import (
    decisive_settings,
    find_cluster,
    log_best,
    log_dry_run,
    manifest_paths,
)

logger = logging.getLogger(__name__)

# In the folder of the run; each fold's run is in a folder there.
RESULT, TABLE, OUTPUTS = "cross_validation.json", "out_of_fold.images.csv", "out_of_fold.npz"


def cross_validate(settings: Settings) -> None:
    """Train a network for each fold, each evaluated on its fold; report over all of them."""
    if (result := cross_validate_folds(settings)) is not None:
        print_result(result)


def cross_validate_folds(settings: Settings) -> dict[str, Any] | None:
    """Return what `cross_validate` prints; None after a dry run."""
    config = settings.project
    _check_settings(settings)
    with if_interrupted("No step is lost; run the same command again."):
        count = len(read_folds(config.data_dir))
        numbers = [config.fold] if config.fold else list(range(1, count + 1))
        splits = {
            number: tuple(read_fold_splits(config.data_dir, number).values())
            for number in (*numbers, *range(1, count + 1))
        }
        for number in numbers:
            check_trainable(splits[number][0])
            log_lacking_classes(splits[number])
        start_tensorflow(config)
        from project.input_assembly import with_native_size

        settings = with_native_size(settings)
        by_fold = {number: with_fold(settings, number, count) for number in range(1, count + 1)}
        runs = {number: make_run(by_fold[number], splits[number]) for number in by_fold}
        if config.resume != "never":
            for run in runs.values():
                run.check()
        train_folds({number: by_fold[number] for number in numbers}, runs)
        return None if settings.dry_run else report(settings, runs)


def _check_settings(settings: Settings) -> None:
    """Raise SettingsError for settings with which no folds can be trained."""
    config = settings.project
    if config.data_format != "tfrecord" or config.train_metadata or config.eval_metadata:
        raise SettingsError(
            "cross_validate needs converted data: convert_dataset.py --split folds=5"
        )
    if config.stream_gigabytes is not None:
        raise SettingsError(
            "stream_gigabytes has no effect on cross_validate, which downloads all folds; leave it "
            "out, or train one fold at a time: --fold 1"
        )
    for name in ("model_dir", "best_model_dir"):
        if settings.values[name].value is not None:
            raise SettingsError(f"{name}: each fold has its own, in run_dir; leave it out")
    if config.debug:
        raise SettingsError("debug overfits one batch: use it with train --fold 1")
    if find_cluster():
        raise SettingsError(
            "cross_validate runs in one process; to train a fold on several workers: train "
            f"--fold 1 --run_dir {config.run_dir}/fold_1, and so on"
        )


def with_fold(settings: Settings, number: int, count: int) -> Settings:
    """Return the settings of a fold's run, which shares the caches of the others.

    Args:
        settings: The settings of the command.
        number: The fold's number, from 1.
        count: Number of folds.
    """
    config, origin = settings.project, f"fold {number} of {count}"
    name = fold_names(count)[number - 1]
    new = {"fold": number, "run_dir": f"{config.run_dir}/{name}", "cache_dir": config.cache_dir}
    return settings.with_values({key: Value(value, origin) for key, value in new.items()})


def make_run(settings: Settings, splits: Any) -> Any:
    """Return the FoldRun of a fold's settings.

    Args:
        settings: As `with_fold` returns them.
        splits: The training and the validation split.
    """
    from library.cross_validation.fold_run import FoldRun

    config = settings.project
    return FoldRun(
        number=config.fold,
        run_dir=Path(config.run_dir),
        checkpoints=Path(config.model_dir),
        best=Path(config.best_model_dir),
        splits=splits,
        settings=decisive_settings(settings),
    )


def train_folds(by_fold: Mapping[int, Settings], runs: Mapping[int, Any]) -> None:
    """Train each fold that is not finished, and store its predictions.

    Args:
        by_fold: Number of a fold → settings of its run.
        runs: Number of a fold → its FoldRun.
    """
    import keras

    from library.cross_validation.fold_predictions import predict_fold
    from library.inputs.corruption import explain_read_errors
    from library.models.features import ReusedNetwork
    from project import assembly
    from project.data_defaults import choose_batch_size, log_if_pretrained_is_better

    devices = reused = None
    for number, settings in by_fold.items():
        run, name = runs[number], f"Fold {number} of {len(runs)}"
        if settings.project.resume != "never" and run.read_outputs():
            logger.info(f"{name} is finished: {run.run_dir}")
            continue
        logger.info(f"{name}: {run.run_dir}")
        if devices is None:
            devices = assembly.start_devices(settings)
            log_if_pretrained_is_better(settings, run.splits[0])
        if reused is None:
            # Layers get the names that they would have in a process of their own.
            keras.utils.clear_session(free_memory=False)
        # The same for all folds, whose sizes differ a little.
        settings = choose_batch_size(settings, runs[1].splits[0], devices.replicas)
        trainer = assembly.make_trainer(settings, run.splits, devices, reused)
        reused = reused or ReusedNetwork.of(trainer.parts.network, trainer.parts.cached_features)
        with in_use(manifest_paths(run.splits)), explain_read_errors(*trainer.inputs):
            if settings.dry_run:
                log_dry_run(trainer)
                return
            log_best(settings.project.best_model_dir, trainer.fit())
            run.write_outputs(predict_fold(trainer))


def report(settings: Settings, runs: Mapping[int, Any]) -> dict[str, Any]:
    """Write the results of all finished folds, and log a table.

    Args:
        settings: The settings of the command.
        runs: Number of a fold → its FoldRun.

    Returns:
        What goes to stdout.
    """
    from library.cross_validation.fold_metrics import (
        compute_fold_metrics,
        format_fold_metrics,
        pool_embeddings,
        pool_predictions,
    )
    from library.evaluation.evaluate import write_summary
    from library.evaluation.image_table import write_image_table
    from library.evaluation.metrics import EvaluationOptions
    from library.prediction.image_outputs import ImageOutputs, write_image_outputs
    from project.assembly import make_objective

    config, folder = settings.project, Path(settings.project.run_dir)
    found = {number: run.read_outputs() for number, run in runs.items()}
    finished = {number: each for number, each in found.items() if each}
    folds = {number: each.predictions for number, each in finished.items()}
    classes = runs[1].splits[0].classes
    pooled, fold_of = pool_predictions(folds)
    options = EvaluationOptions(
        config.top_k, config.bootstrap_samples, config.random_seed, xla=config.xla
    )
    objective = make_objective(settings, is_multi_label=pooled.multi_label)
    result, losses = compute_fold_metrics(folds, classes, objective, options)
    labels = pooled.labels.astype("float32" if pooled.multi_label else "int64")
    embeddings = pool_embeddings([each.embeddings for each in finished.values()])
    outputs = ImageOutputs(
        pooled.names, classes, labels, pooled.probabilities(), embeddings, folds=fold_of
    )
    write_image_outputs(folder / OUTPUTS, outputs)
    columns = {"loss": losses, "fold": fold_of}
    write_image_table(folder / TABLE, pooled.names, classes, labels, outputs.probabilities, columns)
    snapshots = {number: runs[number].best for number in folds}
    summary = {
        "images": len(pooled),
        "folds": [
            {"fold": number, "snapshot": str(snapshots[number]), **each}
            for number, each in result["folds"].items()
        ],
        "missing_folds": sorted(runs.keys() - folds.keys()),
        "data_dir": data_name(config),
        **{name: result[name] for name in ("metrics", "confidence", "top_k")},
    }
    content = {**summary, "pooled": result["pooled"]}
    write_summary(folder / RESULT, content)
    for line in format_fold_metrics(result):
        logger.info(line)
    if config.report:
        write_page(folder, content, (pooled, losses, fold_of), classes)
    log_results(folder, summary, [str(each.parent) for each in snapshots.values()])
    return summary


def write_page(folder: Path, summary: Mapping[str, Any], images: Any, classes: Any) -> None:
    """Write cross_validation.html, unless library/reporting was deleted.

    Args:
        folder: The folder of the run.
        summary: The contents of cross_validation.json.
        images: The out-of-fold predictions, and the loss and the fold of each image.
        classes: The class names.
    """
    try:
        from library.reporting.cross_validation import OutOfFold, write_cross_validation_page
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("library.reporting"):
            raise
        logger.info("no cross_validation.html, because library/reporting is missing")
        return
    write_cross_validation_page(folder, summary, OutOfFold(*images), classes, TABLE)


def log_results(folder: Path, summary: Mapping[str, Any], run_dirs: Sequence[str]) -> None:
    """Log what was written, what is missing, and what to do next.

    Args:
        folder: The folder of the run.
        summary: As `report` returns it.
        run_dirs: The folders of the finished folds' runs.
    """
    images, folds = counted(summary["images"], "image"), counted(len(run_dirs), "fold")
    logger.info(f"Out-of-fold predictions of {images} in {folds}: {folder / TABLE}")
    if missing := [str(each) for each in summary["missing_folds"]]:
        logger.warning(
            f"the results lack {counted(len(missing), 'fold')} ({listed(missing)}): run "
            "cross_validate without --fold to train all"
        )
    elif len(run_dirs) > 1:
        ensemble = ",".join(run_dirs)
        logger.info(f"To use all networks: --ensemble {ensemble}, as with evaluate --split test")
