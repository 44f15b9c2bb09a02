"""The command compare."""

import logging
import shutil
from pathlib import Path

from library.configuration.reader import Settings
from project.hyperparameters import is_in_effect

logger = logging.getLogger(__name__)


def compare(settings: Settings) -> None:
    """Compare runs and the settings in which they differ: a table, a page, a Markdown summary."""
    from library.reporting.comparison import (
        data_warnings,
        find_runs,
        format_comparison,
        write_comparison,
    )

    runs, skipped, folder = find_runs(settings.paths, Path(settings.project.run_dir).parent)
    for line in skipped:
        logger.info(line)
    for line in data_warnings(runs):
        logger.warning(line)
    for line in format_comparison(runs, shutil.get_terminal_size().columns, is_in_effect):
        print(line)
    page, summary = write_comparison(folder, runs, skipped, is_in_effect)
    logger.info(f"wrote {page} and {summary}")
