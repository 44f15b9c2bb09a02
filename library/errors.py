"""What can go wrong for a reason that a person can mend: one line each, with its exit code."""

import codecs
import os
import sys
import traceback

from library.logging import start_logging


class UserError(Exception):
    """The run failed (exit code 1).

    The text is one line: what was found, where (file, line, set, key), and what would be right.
    """

    exit_code = 1


class SettingsError(UserError):
    """A command, option, set, key or value is not what it should be."""

    exit_code = 2


class DataError(UserError):
    """Images, shards or manifests are missing or invalid."""

    exit_code = 3


class UnreachableError(UserError):
    """A store of data does not answer; nothing is known to be wrong with what is in it."""


class CheckpointError(UserError):
    """A checkpoint or snapshot is missing, damaged, or belongs to something else."""

    exit_code = 4


class DivergedError(UserError):
    """The loss became NaN or infinite."""

    exit_code = 5


class StoppedError(UserError):
    """SIGINT or SIGTERM came, and the state was saved."""

    def __init__(self, text, exit_code):
        super().__init__(text)
        self.exit_code = exit_code


def _escape(error):
    """Write what stdout's encoding lacks as JSON does, ü as \\u00fc: a result stays readable."""
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return escaped, error.end


_ESCAPE = "library.escape"
codecs.register_error(_ESCAPE, _escape)


def printable(text):
    """Return str(text) on one line: control characters and undecodable bytes are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in str(text)
    )


def missing_package(error):
    """Return the text for a package that is not there, most often because .venv is not active.

    None for other errors: a module of the project itself, misspelled, is one.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name is None or name.partition(".")[0] in ("library", "project"):
        return None
    return (
        f"{sys.executable} lacks the package {name}: `. .venv/bin/activate` chooses the Python "
        "that `make` has set up; pyproject.toml lists what another one needs"
    )


def run_main(main, arguments, program):
    """Run main(arguments) and give the exit code: 0, or that of the error, shown as one line.

    The line goes to stderr as `program: error: …`; the traceback only with `--verbose` among the
    arguments.
    """
    start_logging()
    verbose = "--verbose" in arguments
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors=_ESCAPE)
    try:
        main(arguments)
        # Else a closed pipe would first be noticed when the interpreter exits, as a traceback.
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # Whoever read our output has read enough (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _show(program, "interrupted", 130, verbose)
    except UserError as error:
        return _show(program, error, error.exit_code, verbose)
    except MemoryError:
        return _show(
            program, "out of memory: a smaller batch_size or image_size needs less", 1, verbose
        )
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _show(program, f"{error.strerror or error}{where}", 1, verbose)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error} (--verbose shows where)"
        return _show(program, missing_package(error) or text, 1, verbose)


def _show(program, text, exit_code, verbose):
    if verbose:
        traceback.print_exc()
    print(f"{program}: error: {printable(text)}", file=sys.stderr)
    return exit_code
