"""The command `select`."""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from library.configuration.reader import Settings
from library.errors import CheckpointError, DataError, SettingsError, printable
from library.messages import counted
from project.commands.setup import for_data, read_data, refuse_without_effect, start_tensorflow

logger = logging.getLogger(__name__)


def select(settings: Settings) -> None:
    """Print which images to label next; files that cannot be read are reported."""
    config = settings.project
    if not settings.paths:
        raise SettingsError("select needs at least one path: python run.py select IMAGE-OR-FOLDER…")
    names = ("threshold", "threshold_precision", "unknown_rate", "calibrate", "embedding")
    refuse_without_effect(config, "select", *names)
    from library.prediction.image_paths import find_images
    from library.prediction.image_pool import ImagePool

    files = find_images(settings.paths, config.csv_columns)
    # The pool's first process starts while TensorFlow is imported.
    with ImagePool() as pool:
        start_tensorflow(config)
        _select(settings, files, pool.convert)


def _select(settings: Settings, files: Iterable[Any], convert: Callable[..., Any]) -> None:
    config = settings.project
    import numpy as np

    from library.prediction.image_outputs import collect_image_outputs
    from library.prediction.neighbor_index import normalize
    from library.prediction.predictor import Predictor
    from library.prediction.preprocess import ImagePreprocessor, predict_files
    from library.selection.candidates import collect_candidates
    from library.selection.choose import CANDIDATES_PER_IMAGE, choose_diverse, measure_distances
    from project import load_network

    original = load_network.read_chosen_snapshot(settings)
    snapshot, training = _calibrate(settings, original)
    labeled = None
    if training:
        outputs = collect_image_outputs(snapshot, training, with_embeddings=True, xla=config.xla)
        labeled = normalize(np.asarray(outputs.embeddings))
    predictor = Predictor([snapshot], embedding=True, xla=config.xla)
    preprocessor = ImagePreprocessor.for_snapshot(snapshot, convert)
    seen = {"images": 0, "unreadable": 0}

    def count(predictions: Iterable[Any]) -> Iterable[Any]:
        for prediction in predictions:
            seen["images"] += 1
            if prediction.error:
                seen["unreadable"] += 1
                logger.info(f"{printable(prediction.name)} {prediction.error}")
            yield prediction

    # Closing ends the threads, whatever ends the loop.
    with closing(
        predict_files(files, preprocessor, predictor, config.eval_batch_size)
    ) as predictions:
        candidates = collect_candidates(
            count(predictions),
            CANDIDATES_PER_IMAGE * config.count,
            multi_label=predictor.multi_label,
        )
    if seen["images"] == seen["unreadable"]:
        raise DataError("none of the files could be read")
    chosen = candidates.take(
        choose_diverse(
            candidates.probabilities,
            candidates.embeddings,
            config.count,
            multi_label=predictor.multi_label,
        )
    )
    logger.info(
        f"{counted(len(chosen), 'image')} selected of {seen['images']:,}, "
        f"{seen['unreadable']:,} unreadable"
    )
    if len(chosen) < config.count:
        logger.info("the others are copies of these")
    distances = measure_distances(chosen.embeddings, labeled)
    _print(config, original, predictor, chosen, distances)


def _calibrate(settings: Settings, snapshot: Any) -> tuple[Any, Any]:
    """Return the snapshot with calibrated probabilities, and inputs of the training split.

    Without the run's data, the snapshot is as it is, and the inputs are None.
    """
    from library.prediction.calibrate import calibrate
    from project import load_network

    config = settings.project
    try:
        splits = read_data(for_data(config), "train", "validation")
        training, validation = (
            load_network.make_inputs_for(snapshot, settings, each) for each in splits
        )
    except (DataError, CheckpointError) as error:
        logger.warning(f"without calibration, and without regard to the labeled images: {error}")
        return snapshot, None
    fitted = calibrate(snapshot, validation, with_temperature=True, xla=config.xla)
    return fitted.snapshot, training


def _print(config: Any, snapshot: Any, predictor: Any, chosen: Any, distances: Any) -> None:
    from library.prediction.calibrate import choose_classes
    from library.selection.formats import (
        Choice,
        count_hidden,
        find_document_root,
        format_csv,
        format_label_studio,
        labeling_interface,
    )

    choices = []
    columns = (chosen.names, chosen.probabilities, chosen.uncertainty, distances)
    for name, probabilities, uncertainty, distance in zip(*columns, strict=True):
        answer = choose_classes(probabilities, snapshot.classes, None, predictor.multi_label)
        classes = (answer,) if isinstance(answer, str) else tuple(answer)
        numbers = (float(each) for each in (probabilities.max(), uncertainty, distance))
        choices.append(Choice(name, classes, *numbers))
    if config.select_format == "csv":
        print(format_csv(choices), end="")
        return
    if hidden := count_hidden(chosen.names):
        logger.warning(
            f"{counted(hidden, 'image')} in archives, which Label Studio cannot show: unpack them"
        )
    root = find_document_root(chosen.names)
    version = f"{snapshot.network.name} {snapshot.sha256[:8]}".strip()
    print(format_label_studio(choices, version, root), end="")
    interface = labeling_interface(snapshot.classes, multi_label=predictor.multi_label)
    logger.info(f"labeling interface for Label Studio: {interface}")
    logger.info(f"its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT: {root}")
