"""The command `predict`."""

import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from library.dataset.storage import is_remote
from library.errors import DataError, SettingsError, printable
from library.messages import counted
from project.commands.setup import for_data, read_validation, start_tensorflow

logger = logging.getLogger(__name__)

_BEAM_ONLY = ("beam_options", "predict_dir")


def predict(settings: Any) -> None:
    """Classify images; files that cannot be read are reported.

    The local engine prints one line for each image, Beam writes them to shards.
    """
    config = settings.project
    if not settings.paths:
        raise SettingsError(
            "predict needs at least one path: python run.py predict IMAGE-OR-FOLDER…"
        )
    if config.engine == "beam":
        try:
            from library.beam.pipeline import read_options
        except ModuleNotFoundError as error:
            raise SettingsError(f"engine beam needs {error.name}, which was deleted") from None
        options = read_options(config.beam_options or "")
    elif given := [each for each in _BEAM_ONLY if settings.values[each].value is not None]:
        raise SettingsError(f"{given[0]} needs --engine beam")
    from library.prediction.image_paths import find_images

    files = find_images(settings.paths, config.csv_columns)
    validation_split = read_validation(for_data(config))
    if config.engine == "beam":
        start_tensorflow(config)
        predicted, unreadable = _predict_on_beam(settings, validation_split, options)
    else:
        from library.prediction.image_pool import ImagePool

        # The pool's first process starts while TensorFlow is imported.
        with ImagePool() as pool:
            start_tensorflow(config)
            predicted, unreadable = _predict(settings, files, validation_split, pool.convert)
    logger.info(f"{counted(predicted, 'image')} predicted, {unreadable:,} unreadable")
    if not predicted:
        raise DataError("none of the files could be predicted")


def _predict(
    settings: Any, files: Iterable[Any], validation_split: Any, convert: Callable[..., Any]
) -> tuple[int, int]:
    """Print the predictions and return how many there are, and how many unreadable files."""
    config = settings.project
    from library.prediction.preprocess import ImagePreprocessor, predict_files

    calibrated, predictor, formatter = _load(settings, validation_split)
    for line in formatter.header():
        print(line)
    predicted = unreadable = 0
    preprocessor = ImagePreprocessor.for_snapshot(calibrated.snapshot, convert)
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
    return predicted, unreadable


def _predict_on_beam(settings: Any, validation_split: Any, options: Any) -> tuple[int, int]:
    """Write the predictions into shards and return the same numbers as `_predict`."""
    config = settings.project
    from library.beam import prediction, prediction_folder
    from library.beam.pipeline import run_pipeline
    from library.beam.staged_network import stage_network

    calibrated, _, formatter = _load(settings, validation_split)
    folder = _results_folder(settings)
    job = prediction.PredictionJob(
        settings.paths,
        config.csv_columns,
        config.eval_batch_size,
        partial(start_tensorflow, config),
    )
    with prediction_folder.staging_folder(folder) as staging:
        writer = prediction_folder.ShardWriter(
            staging, config.predict_shards, config.predict_format, tuple(formatter.header())
        )
        staged = stage_network(staging, calibrated, formatter, xla=config.xla)
        run_pipeline(partial(prediction.add_steps, job=job, staged=staged, writer=writer), options)
        return prediction_folder.publish(staging, folder)


def _results_folder(settings: Any) -> str:
    """Return the URL or the absolute path of the results: workers have other local folders."""
    folder = settings.project.predict_dir.rstrip("/")
    run_url = settings.urls.get(settings.project.run_dir)
    if run_url and settings.values["predict_dir"].value is None:
        return f"{run_url}/predictions"
    return folder if is_remote(folder) else str(Path(folder).absolute())


def _load(settings: Any, validation_split: Any) -> tuple[Any, Any, Any]:
    """Return a CalibratedSnapshot, its Predictor and a PredictionFormatter."""
    config = settings.project
    from library.prediction.output import PredictionFormatter
    from library.prediction.predictor import Predictor
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
    return calibrated, predictor, formatter
