"""`history.csv`, one row per evaluation, and `curves.svg`, the same as a figure."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from library.errors import reason_of
from library.figures.training_curves import write_curves
from library.files import write_file
from library.training.listeners import Evaluation, Finish, Listener, Start

logger = logging.getLogger(__name__)


class History(Listener):
    """Writes the evaluations of a run, those before a resume included, into its folder."""

    def on_start(self, start: Start) -> None:
        """Take over the rows before a resume."""
        self._folder = Path(start.paths.run_dir)
        self._rows: list[Mapping[str, Any]] = list(start.rows)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Write history.csv."""
        self._rows.append(evaluation.row)
        path = self._folder / "history.csv"
        try:
            # The whole file each time: after a resume it must not hold rows of an undone future.
            write_file(path, _to_csv(self._rows))
        except OSError as error:
            # The checkpoint has the rows too: the next evaluation tries again with all of them.
            logger.warning(f"{path} could not be written ({reason_of(error)})")

    def on_finish(self, finish: Finish) -> None:
        """Write curves.svg."""
        best_epoch = finish.best["epoch"] if finish.best else None
        try:
            write_curves(self._folder / "curves.svg", self._rows, best_epoch)
        except OSError as error:
            logger.warning(f"curves.svg could not be written ({reason_of(error)})")


def _to_csv(rows: list[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
