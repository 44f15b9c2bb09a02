"""Logging to stderr, one line per record, above the progress bar if there is one.

Modules log with `logging.getLogger(__name__)`. The command line calls `start_logging` once; without
it, as in a notebook, Python shows warnings only.

C and C++ libraries write past Python, to file descriptor 2, and no setting reaches all of it. So
within a command this descriptor is a pipe to `tail`, while sys.stderr is the terminal still. If the
process crashes, even by a signal, `tail` shows the last lines; at a good end it is killed first.
"""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

_ROOTS = ("library", "project")
# Of what native libraries wrote before a crash.
_NATIVE_LINES = 20
# Work that takes less than this is done before anyone looks.
_QUIET_SECONDS = 5
# Between two lines about the progress of the same work, if it is slow.
_SECONDS_BETWEEN_LINES = 60
# The processes that keep the lines of native libraries.
_keepers: list[subprocess.Popen[bytes]] = []


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


def progress_bar(
    total: int, description: str | None = None, *, has_shares: bool = True, **options: Any
) -> Any:
    """Return a tqdm bar if stderr is a terminal; else one that logs lines, for a file of logs.

    Args:
        total: The number of units.
        description: What the bar is about.
        has_shares: Whether each tenth is a line; otherwise a line comes each minute at most.
        **options: Options of tqdm.
    """
    from tqdm import tqdm  # imported late: --help does without it

    if sys.stderr.isatty():
        return tqdm(total=total, desc=description, dynamic_ncols=True, **options)

    class Lines(tqdm):
        """Logs where it stands, instead of drawing it."""

        started_at = logged_at = time.monotonic()
        logged_tenth = 0

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            tenth = int(10 * self.n / self.total) if self.total and has_shares else 0
            is_due = time.monotonic() - self.logged_at >= _SECONDS_BETWEEN_LINES
            is_slow = time.monotonic() - self.started_at >= _QUIET_SECONDS
            # An empty message would clear a bar.
            if msg != "" and is_slow and (tenth > self.logged_tenth or is_due):
                self.logged_tenth, self.logged_at = tenth, time.monotonic()
                logging.getLogger(__name__).info(" ".join(str(self).split()))

        def close(self) -> None:
            # Work that failed gets no last line.
            self.leave = self.leave and self.n == self.total
            super().close()

    rate = "{rate_noinv_fmt}, {remaining} left"
    text = f"{{desc}}: {{percentage:.0f}} % of {{total_fmt}}{{unit}}, {rate}{{postfix}}"
    options = {"mininterval": 1, **options, "file": io.StringIO(), "bar_format": text}
    return Lines(total=total, desc=description, **options)


def drop_warnings() -> None:
    """Show no warnings of Python's libraries, which mean nothing to a user; `-W error` still works.

    What matters is logged.
    """
    logging.captureWarnings(True)
    # Not to the root logger either: see start_logging.
    logging.getLogger("py.warnings").propagate = False


def set_chief(is_chief: bool) -> None:
    """Show all records of this process if it is the chief of the workers, otherwise errors only."""
    _chief_only.is_chief = is_chief


# A source is often read again: for each split, or to fetch what was counted before.
@lru_cache(maxsize=256)
def log_once(logger: logging.Logger, text: str, level: int = logging.INFO) -> None:
    """Log a text, unless this process has logged it already."""
    logger.log(level, text)


@contextlib.contextmanager
def native_stderr_aside(is_explained: Callable[[BaseException], bool]) -> Iterator[None]:
    """Show what is written to file descriptor 2 within the block only if the block fails.

    Where there is no `tail`, as on Windows, everything is shown.

    Args:
        is_explained: Returns whether an error's own text says enough.
    """
    tail = shutil.which("tail")
    if tail is None:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    # In a session of its own, so that Ctrl-C does not end it before this process.
    with subprocess.Popen(
        [tail, "-n", str(_NATIVE_LINES)],
        stdin=subprocess.PIPE,
        stdout=stderr,
        start_new_session=True,
    ) as keeper:
        assert keeper.stdin is not None
        os.dup2(keeper.stdin.fileno(), 2)
        keeper.stdin.close()
        _keepers.append(keeper)
        try:
            with _python_stderr(stderr):
                yield
        except BaseException as error:
            if is_explained(error):
                keeper.kill()
            raise
        else:
            keeper.kill()
        finally:
            _keepers.remove(keeper)
            # The end of the pipe: `tail` shows its lines now, unless it was ended.
            os.dup2(stderr, 2)
            os.close(stderr)


def discard_native_messages() -> None:
    """Show no messages of native libraries, even if the process is ended."""
    for keeper in _keepers:
        keeper.kill()


@contextlib.contextmanager
def _python_stderr(descriptor: int) -> Iterator[None]:
    """Let sys.stderr write to a descriptor within the block, if it writes to descriptor 2 now."""
    before: Any = sys.stderr
    try:
        is_native = before.fileno() == 2
    except (AttributeError, OSError, ValueError):  # Replaced, as in a test or a notebook.
        is_native = False
    if not is_native:
        yield
        return
    with open(
        descriptor, "w", 1, encoding=before.encoding, errors=before.errors, closefd=False
    ) as sys.stderr:
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stderr = before
