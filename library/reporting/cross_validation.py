"""The page about a cross-validation: metrics over folds, all images' confusion matrix, mistakes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from library.evaluation.predictions import Predictions
from library.evaluation.table import format_interval, format_number, metric_label
from library.figures.html import link_pages, read_script, render
from library.files import write_file
from library.messages import counted, listed
from library.reporting.charts import make_confusion_chart
from library.reporting.mistakes import SEPARATOR, make_mistake_table

logger = logging.getLogger(__name__)

PAGE = "cross_validation.html"


class OutOfFold(NamedTuple):
    """The out-of-fold predictions of n images, the loss, float (n,), and the fold of each."""

    predictions: Predictions
    losses: np.ndarray
    folds: np.ndarray


def write_cross_validation_page(
    folder: Path,
    summary: Mapping[str, Any],
    images: OutOfFold,
    classes: Sequence[str],
    image_table: str,
) -> None:
    """Write the page into the folder of a cross-validation.

    Args:
        folder: The folder.
        summary: The contents of cross_validation.json.
        images: What was predicted.
        classes: Class names in label order.
        image_table: File name of the table of all images, in the folder.
    """
    predictions = images.predictions
    metrics, by_fold = summary["metrics"], summary["folds"]
    interval = f"{summary['confidence']:.0%} interval"
    labels = {name: metric_label(name, summary["top_k"]) for name in metrics}
    # Multi-label accuracy is that of single classes, not of images.
    answer = metrics.get("exact_match", metrics["accuracy"])
    chart = None if predictions.multi_label else make_confusion_chart(predictions, classes)
    page = render(
        "library.reporting",
        "cross_validation.html",
        script=read_script("library.figures", "tables.js"),
        title=str(folder),
        accuracy=answer["mean"],
        heading=counted(len(by_fold), "fold"),
        images=counted(len(predictions), "image"),
        missing=listed([str(each) for each in summary["missing_folds"]]),
        head=("metric", "mean", "deviation", interval, "pooled", interval),
        rows=[
            (
                labels[name],
                *map(format_number, (each["mean"], each["standard_deviation"])),
                format_interval(each["mean_interval"]),
                format_number(each["pooled"]),
                format_interval(each["pooled_interval"]),
            )
            for name, each in metrics.items()
        ],
        fold_head=("fold", "images", *labels.values()),
        fold_rows=[
            (each["fold"], f"{each['images']:,}", *(format_number(each[name]) for name in metrics))
            for each in by_fold
        ],
        confusion=chart,
        classes=classes,
        mistake_count=int(np.count_nonzero(~predictions.correct)),
        mistake_table=make_mistake_table(predictions, images.losses, classes, images.folds),
        separator=SEPARATOR,
        image_table=image_table,
    )
    write_file(folder / PAGE, page)
    link_pages(folder)
    logger.info(f"HTML report: {folder / PAGE}")
