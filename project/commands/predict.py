"""The command `predict`."""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from library.errors import DataError, SettingsError, printable
from library.messages import counted
from project.commands.setup import for_data, read_validation, start_tensorflow

logger = logging.getLogger(__name__)


def predict(settings: Any) -> None:
    """Classify images and print one line for each; files that cannot be read are reported."""
    config = settings.project
    if not settings.paths:
        raise SettingsError(
            "predict needs at least one path: python run.py predict IMAGE-OR-FOLDER…"
        )
    from library.prediction.image_paths import find_images

    files = find_images(settings.paths, config.csv_columns)
    validation_split = read_validation(for_data(config))
    from library.prediction.image_pool import ImagePool

    # The pool's first process starts while TensorFlow is imported.
    with ImagePool() as pool:
        start_tensorflow(config)
        predicted = _predict(settings, files, validation_split, pool.convert)
    if not predicted:
        raise DataError("none of the files could be predicted")


def _predict(
    settings: Any, files: Iterable[Any], validation_split: Any, convert: Callable[..., Any]
) -> int:
    """Print the predictions and return how many there are."""
    config = settings.project
    from library.prediction.output import PredictionFormatter
    from library.prediction.predictor import Predictor
    from library.prediction.preprocess import ImagePreprocessor, predict_files
    from project import load_network

    snapshot = load_network.read_chosen_snapshot(settings)
    calibrated = load_network.fit_to_validation(settings, snapshot, validation_split)
    snapshot = calibrated.snapshot
    predictor = Predictor(
        [snapshot], embedding=config.embedding, detector=calibrated.detector, xla=config.xla
    )
    formatter = PredictionFormatter(
        classes=snapshot.classes,
        format=config.predict_format,
        top_k=config.top_k,
        threshold=calibrated.threshold,
        multi_label=predictor.multi_label,
        embedding_size=predictor.embedding_size,
        has_unknown_score=calibrated.detector is not None,
    )
    for line in formatter.header():
        print(line)
    predicted = unreadable = 0
    preprocessor = ImagePreprocessor.for_snapshot(snapshot, convert)
    predictions = predict_files(files, preprocessor, predictor, config.eval_batch_size)
    # Closing ends the threads, whatever ends the loop.
    with closing(predictions):
        for prediction in predictions:
            print(formatter.line(prediction))
            if prediction.error:
                unreadable += 1
                logger.info(f"{printable(prediction.name)} {prediction.error}")
            else:
                predicted += 1
    logger.info(f"{counted(predicted, 'image')} predicted, {unreadable:,} unreadable")
    return predicted
