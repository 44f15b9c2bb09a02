"""The command clean."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from library.configuration.reader import Settings
from library.configuration.schema import DEFAULT
from library.dataset.folds import find_folds, join_splits, read_folds
from library.dataset.manifest import Manifest
from library.dataset.sources.base import TRAINING
from library.errors import DataError, SettingsError, UserError
from library.files import explain_write_errors, new_folder
from library.messages import counted
from project.commands.setup import (
    follow_fold,
    print_result,
    read_data,
    refuse_without_effect,
    start_tensorflow,
)

# What cross_validate writes into its run directory.
OUT_OF_FOLD_FILE = "out_of_fold.npz"
_MAX_LINES, _MAX_PAIRS = 10, 100

logger = logging.getLogger(__name__)


def clean(settings: Settings) -> None:
    """Rank the images of a split by how probably their labels are wrong: files, a page, a table."""
    settings = follow_fold(settings)
    config = settings.project
    refuse_without_effect(config, "clean", "threshold", "threshold_precision", "calibrate")
    name = TRAINING if settings.values["split"].provenance == DEFAULT else config.split
    split = read_images(config, name)
    start_tensorflow(config)
    from library.cleaning.evidence import Evidence
    from library.cleaning.image_scan import scan_images
    from library.cleaning.neighbor_votes import find_votes
    from library.cleaning.ranking import rank
    from project.input_assembly import make_split_source

    source = make_split_source(config, split)
    scanned = scan_images(source)
    # Those of a single fold are of images that its run did not train on.
    path = None if config.fold else Path(config.run_dir, OUT_OF_FOLD_FILE)
    found = path and find_out_of_fold(path, split, scanned.names)
    outputs, origin = found or predict(settings, split)
    # Those of the data: it may have been corrected since.
    outputs = replace(outputs, names=scanned.names, labels=scanned.labels)
    if outputs.embeddings is None and outputs.folds is not None:
        outputs = replace(outputs, embeddings=embed_folds(settings, outputs))
    ranking = rank(outputs, find_votes(outputs), scanned.groups)
    recorded = split.settings.get("source") if isinstance(split, Manifest) else None
    evidence = Evidence(ranking, outputs, Path(recorded) if recorded else None)
    summary = write_cleaning(config, evidence, source, (name, origin))
    log_cleaning(summary, config.run_dir)
    print_result({**summary, "confusions": summary["confusions"][:_MAX_PAIRS]})


def read_images(config: Any, name: str) -> Any:
    """Return the split to clean; of a cross-validation's data, all folds are the training split."""
    is_converted = config.data_format == "tfrecord" and not config.train_metadata
    if name == TRAINING and is_converted and not config.fold and find_folds(config.data_dir):
        return join_splits(tuple(read_folds(config.data_dir)), TRAINING)
    return read_data(config, name)[0]


def find_out_of_fold(path: Path, split: Any, names: Any) -> tuple[Any, str] | None:
    """Return a cross-validation's outputs, in the order of the images' names, and their origin.

    Args:
        path: The file that cross_validate wrote.
        split: The split to clean.
        names: Those of its images.

    Returns:
        None, after a line about the reason, if it does not have them all.
    """
    from library.cleaning.suspects import OUT_OF_FOLD
    from library.prediction.image_outputs import read_image_outputs

    if split.name != TRAINING or not path.exists():
        return None
    outputs = read_image_outputs(path)
    if outputs.classes != split.classes or outputs.is_multi_label != split.is_multi_label:
        raise DataError(f"{path} has other classes than the data: run cross_validate again")
    rows = {name: row for row, name in enumerate(outputs.names)}
    if lacking := [name for name in names if name not in rows]:
        logger.warning(
            f"{path} has no predictions for {counted(len(lacking), 'image')}, such as "
            f"{lacking[0]}, and is not used: run cross_validate again"
        )
        return None
    order = np.array([rows[name] for name in names])
    arrays = {
        name: values[order]
        for name in ("probabilities", "embeddings", "folds")
        if (values := getattr(outputs, name)) is not None
    }
    logger.info(f"out-of-fold predictions: {path}")
    return replace(outputs, **arrays), OUT_OF_FOLD


def embed_folds(settings: Settings, outputs: Any) -> np.ndarray | None:
    """Return each image's embedding by the network of its fold, (n, size).

    Args:
        settings: The settings.
        outputs: A cross-validation's outputs, in any order.

    Returns:
        None, after a line about the reason, without the folds, their networks or an embedding.
    """
    from library.prediction.image_outputs import collect_image_outputs, embedding_dtype
    from library.saving.snapshots import read_snapshot
    from project.input_assembly import make_evaluation_inputs

    config = settings.project
    if config.stream_gigabytes is not None:
        logger.info("no neighbors: stream_gigabytes would not hold for the folds")
        return None
    rows = {name: row for row, name in enumerate(outputs.names)}
    embeddings: np.ndarray | None = None
    try:
        for fold in read_folds(config.data_dir):
            snapshot = read_snapshot(Path(config.run_dir, fold.name, "best"))
            inputs = make_evaluation_inputs(settings, fold, snapshot.image_format)
            found = collect_image_outputs(snapshot, inputs, with_embeddings=True, xla=config.xla)
            assert found.embeddings is not None
            if embeddings is None:
                shape = len(rows), found.embeddings.shape[1]
                embeddings = np.zeros(shape, embedding_dtype(*shape))
            own = [rows[name] for name in found.names]
            if (outputs.folds[own] != int(fold.name.rpartition("_")[2])).any():
                raise DataError(f"{fold.name} has other images than it had for cross_validate")
            embeddings[own] = found.embeddings
    except UserError as error:
        logger.info(f"without the votes of neighbors: {error}")
        return None
    return embeddings


def predict(settings: Settings, split: Any) -> tuple[Any, str]:
    """Return what the chosen snapshot says about a split, and whether it trained on the images."""
    from library.cleaning.suspects import HELD_OUT, IN_SAMPLE
    from library.prediction.image_outputs import collect_image_outputs
    from project import load_network

    config = settings.project
    snapshot = load_network.read_chosen_snapshot(settings)
    inputs = load_network.make_inputs_for(snapshot, settings, split)
    if split.name == TRAINING:
        logger.warning(
            f"in-sample predictions: {snapshot.folder} was trained on these images, and a network "
            "believes the wrong labels that it learned; out-of-fold ones find more of them: "
            "convert_dataset.py --split folds=5, then run.py cross_validate, then clean"
        )
    origin = IN_SAMPLE if split.name == TRAINING else HELD_OUT
    try:
        outputs = collect_image_outputs(snapshot, inputs, with_embeddings=True, xla=config.xla)
    except SettingsError as error:
        logger.info(f"without the votes of neighbors: {error}")
        outputs = collect_image_outputs(snapshot, inputs, xla=config.xla)
    return outputs, origin


def write_cleaning(
    config: Any, evidence: Any, source: Any, subject: tuple[str, str]
) -> dict[str, Any]:
    """Write the folder `cleaning` of the run, and return what it holds in short.

    Args:
        config: The settings of project.yaml.
        evidence: The Evidence about the images.
        source: The images.
        subject: The split's name, and where the predictions are from.
    """
    from library.cleaning.evidence import write_ranking
    from library.cleaning.image_scan import thumbnail_name, write_thumbnails
    from library.cleaning.page import write_page
    from library.cleaning.ranking import confused_pairs
    from library.cleaning.suspects import CLEANING_FOLDER, THUMBNAILS, Suspects, write_suspects
    from library.dataset.corrections import write_corrections

    folder = Path(config.run_dir, CLEANING_FOLDER)
    outputs, ranking = evidence.outputs, evidence.ranking
    split_name, origin = subject
    worst = evidence.worst(config.count)
    shown = [each for image in worst for each in (image, *evidence.near(image))]
    thumbnails = {each: thumbnail_name(each) for each in shown}
    suspects = Suspects(
        classes=list(outputs.classes),
        multi_label=outputs.is_multi_label,
        split=split_name,
        dataset_dir=str(evidence.source) if evidence.source else None,
        run=config.run_dir,
        predictions=origin,
        images=len(outputs),
        suspects=[evidence.suspect(n, image, thumbnails) for n, image in enumerate(worst)],
    )
    with explain_write_errors(f"the results in {folder}"):
        with new_folder(folder / THUMBNAILS) as partial:
            write_thumbnails(source, shown, partial)
        write_ranking(folder, evidence)
        write_suspects(folder, suspects)
        if not (corrections := folder / "corrections.csv").exists():
            write_corrections(corrections)
        page = write_page(folder)
    return {
        "split": split_name,
        "predictions": origin,
        "images": len(outputs),
        "suspected": int(ranking.is_suspected.sum()),
        "listed": len(worst),
        "confusions": [
            {"label": given, "suggestion": suggested, "images": count}
            for given, suggested, count in confused_pairs(ranking, outputs)
        ],
        "folder": str(folder),
        "page": str(page),
    }


def log_cleaning(summary: Mapping[str, Any], run_dir: str) -> None:
    """Log how many labels are suspected, and of which pairs of classes the most.

    Args:
        summary: As `write_cleaning` returns it.
        run_dir: The run directory.
    """
    images, suspected = summary["images"], summary["suspected"]
    logger.info(
        f"{summary['split']}: {counted(suspected, 'label')} of {counted(images, 'image')} "
        f"({suspected / images:.1%}) are probably wrong; {summary['listed']:,} images are in "
        f"{summary['page']}"
    )
    pairs = summary["confusions"][:_MAX_LINES]
    width = max((len(each["label"]) for each in pairs), default=0)
    for each in pairs:
        logger.info(
            f"{each['images']:>7,}  {each['label']:<{width}}  probably {each['suggestion']}"
        )
    logger.info(f"to decide about them: run.py serve --clean --run_dir {run_dir}")
