"""The command compare."""

import logging
import shutil
from pathlib import Path

from library.configuration.reader import Settings
from project.hyperparameters import is_in_effect

logger = logging.getLogger(__name__)


def compare(settings: Settings) -> None:
    """Compare runs and the settings in which they differ: tables, a page, a Markdown summary."""
    from library.comparing.comparison import Comparison
    from library.comparing.find_runs import find_runs
    from library.comparing.metrics import best_first, find_metric
    from library.comparing.output import FORMATS, format_text, write_comparison

    config = settings.project
    runs, skipped, folder = find_runs(settings.paths, Path(config.run_dir).parent)
    metric = find_metric(config.sort_by, runs)
    comparison = Comparison(best_first(runs, metric), metric, is_in_effect, skipped)
    for line in skipped:
        logger.info(line)
    for line in comparison.warnings:
        logger.warning(line)
    if config.compare_format == "text":
        for line in format_text(comparison, shutil.get_terminal_size().columns):
            print(line)
    else:
        print(FORMATS[config.compare_format](comparison))
    page, summary = write_comparison(folder, comparison)
    logger.info(f"wrote {page} and {summary}")
