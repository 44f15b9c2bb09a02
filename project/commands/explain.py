"""The command explain."""

import logging
from pathlib import Path
from typing import Any

from library.configuration.reader import Settings
from library.errors import CheckpointError, DataError
from project.commands.setup import (
    for_data,
    print_result,
    read_data,
    refuse_without_effect,
    start_tensorflow,
)

logger = logging.getLogger(__name__)


def explain(settings: Settings) -> None:
    """Explain predictions for given images, or for some of a split, on a page and as PNGs."""
    config = settings.project
    names = ("threshold", "threshold_precision", "calibrate", "unknown_rate")
    refuse_without_effect(config, "explain", *names)
    from library.prediction.image_paths import find_images

    data = for_data(config) if settings.paths else config
    files = find_images(settings.paths, config.csv_columns) if settings.paths else None
    start_tensorflow(config)
    from library.explaining.explanation import choose_images, explain_images, load_images
    from library.explaining.explanation_files import explanation_json, write_explanation
    from library.figures.html import link_pages
    from library.prediction.image_pool import ImagePool
    from library.prediction.preprocess import ImagePreprocessor
    from project import load_network

    snapshot = load_network.read_chosen_snapshot(settings)

    def inputs_of(split_name: str) -> Any:
        return load_network.make_inputs_for(snapshot, settings, *read_data(data, split_name))

    if files:
        with ImagePool(1) as pool:
            preprocessor = ImagePreprocessor.for_snapshot(snapshot, pool.convert)
            images = load_images(files, preprocessor, config.explain_images)
    else:
        images = choose_images(inputs_of(config.split), snapshot.classes, config.explain_images)
    training = None
    if config.explain_neighbors:
        try:
            training = inputs_of("train")
        except (DataError, CheckpointError) as error:
            logger.info(f"without the nearest training images: {error}")
    explanation = explain_images(
        snapshot.network,
        snapshot.classes,
        images,
        training,
        neighbor_count=config.explain_neighbors,
        layer=config.explain_layer,
    )
    subject = f"{snapshot.network.name} in {snapshot.folder}"
    page = write_explanation(explanation, Path(config.run_dir) / "explain", subject)
    link_pages(config.run_dir)
    logger.info(f"heat maps by {explanation.method}; HTML page: {page}")
    print_result({"page": str(page), **explanation_json(explanation)})
