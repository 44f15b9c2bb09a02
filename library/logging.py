"""Logging to stderr, one line per record, above the progress bar if there is one.

Modules log with `logging.getLogger(__name__)`. The command line calls `start_logging` once; without
it, as in a notebook, Python shows warnings only.
"""

import logging
import sys
from functools import lru_cache

_ROOTS = ("library", "project")


class _StderrHandler(logging.Handler):
    """Write records to the current sys.stderr without breaking tqdm's bars."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm  # imported late: --help does without it

        tqdm.write(self.format(record), file=sys.stderr)


class _Formatter(logging.Formatter):
    """Show the text of information alone, and that of other levels after the level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


class _ChiefOnly(logging.Filter):
    """Drop what a worker other than the chief logs, because all workers log the same."""

    is_chief = True

    def filter(self, record: logging.LogRecord) -> bool:
        return self.is_chief or record.levelno >= logging.ERROR


_chief_only = _ChiefOnly()
_handler = _StderrHandler()
_handler.setFormatter(_Formatter())
_handler.addFilter(_chief_only)


def start_logging(level: int = logging.INFO) -> None:
    """Show the records of library and project on stderr, from `level` on."""
    for name in _ROOTS:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        # Not also to the root logger: absl, which TensorFlow imports, has a handler there.
        logger.propagate = False
        if _handler not in logger.handlers:
            logger.addHandler(_handler)
    set_chief(True)


def set_chief(is_chief: bool) -> None:
    """Show all records of this process if it is the chief of the workers, otherwise errors only."""
    _chief_only.is_chief = is_chief


# A source is often read again: for each split, or to fetch what was counted before.
@lru_cache(maxsize=256)
def log_once(logger: logging.Logger, text: str, level: int = logging.INFO) -> None:
    """Log a text, unless this process has logged it already."""
    logger.log(level, text)
