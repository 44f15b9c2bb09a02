"""Errors that a user can fix, each shown as one line and with an exit code of its own."""

import codecs
import contextlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

# What TensorFlow's InternalError says if a GPU has too little memory.
_NO_GPU_MEMORY = re.compile(
    "out of memory|OUT_OF_MEMORY|RESOURCE_EXHAUSTED|Dst tensor is not initialized"
)


class UserError(Exception):
    """The run failed (exit code 1).

    The text is one line: what was found, where (file, line, set, key), and what would be right.
    """

    exit_code = 1


class SettingsError(UserError):
    """A command, option, set, key or value is wrong (exit code 2)."""

    exit_code = 2


class DataError(UserError):
    """Images, shards or manifests are missing or invalid (exit code 3)."""

    exit_code = 3


class UnreachableError(UserError):
    """A remote store does not answer; the data in it may be fine (exit code 1)."""


class CheckpointError(UserError):
    """A checkpoint or snapshot is missing, damaged or of another run (exit code 4)."""

    exit_code = 4


class DivergedError(UserError):
    """The loss became NaN or infinite (exit code 5)."""

    exit_code = 5


class StoppedError(UserError):
    """SIGINT or SIGTERM stopped the run (exit code 130 or 143); the text says what is kept."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class TerminatedError(KeyboardInterrupt):
    """SIGTERM arrived: what ends a command at Ctrl-C ends it now."""


# What follows `Interrupted. ` if nothing better is known.
_NOTHING_LOST = "Nothing incomplete is left behind; run the same command again."
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# Set as soon as one of these arrives, even while the main thread is busy in an op of TensorFlow.
signal_arrived = threading.Event()


def _escape_as_json(error: UnicodeError) -> tuple[str, int]:
    """Escape a character that stdout's encoding lacks as JSON does: ü becomes \\u00fc."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return escaped, error.end


_ESCAPE_AS_JSON = "library.escape_as_json"
codecs.register_error(_ESCAPE_AS_JSON, _escape_as_json)


def printable(text: object) -> str:
    """Return str(text) on one line, with control characters and undecodable bytes escaped."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in line
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or the name of its class if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Return what the operating system says about an OSError, or any error's first line."""
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out, of the CPU or of a GPU, perhaps behind another error."""
    while error is not None:
        # By name: TensorFlow may not even be imported.
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            return True
        if type(error).__name__ == "InternalError" and _NO_GPU_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False


def missing_package(error: BaseException) -> str | None:
    """Return the message for a package that is not installed, or None for any other error.

    A module of the project itself, misspelled, is another error.
    """
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    if name is None or name.partition(".")[0] in ("library", "project"):
        return None
    return (
        f"the package {name} is not installed in {sys.executable}: activate the environment that "
        "`make` creates (`. .venv/bin/activate`), or install the packages in pyproject.toml"
    )


def run_main(
    main: Callable[[Sequence[str]], object], arguments: Sequence[str], program: str
) -> int:
    """Run main(arguments), and show an error as one line on stderr, `program: error: …`.

    Args:
        main: The function to run.
        arguments: Its command-line arguments; with `--verbose` among them an error is shown with
            its traceback.
        program: Name of the program in the error message.

    Returns:
        The exit code: 0, or that of the error.
    """
    # Imported late: worker processes neither log nor run commands.
    from library.logging import drop_warnings, native_stderr_aside, start_logging

    start_logging()
    verbose = "--verbose" in arguments
    if not verbose:
        drop_warnings()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ESCAPE_AS_JSON)
    try:
        with (
            contextlib.nullcontext() if verbose else native_stderr_aside(_is_explained),
            handled_signals(_raise, "Stopping; press again to quit now"),
        ):
            main(arguments)
        # Flush now: at the interpreter's exit, a closed pipe would show a traceback.
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`): discard the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as interrupt:
        return _show("", *_describe(stopped_by(interrupt, _NOTHING_LOST)), verbose)
    except StoppedError as error:
        return _show("", *_describe(error), verbose)
    except Exception as error:
        return _show(f"{program}: error: ", *_describe(error), verbose)


def stopped_by(interrupt: KeyboardInterrupt, kept: str) -> StoppedError:
    """Return the error that ends a command after SIGINT or SIGTERM.

    Args:
        interrupt: What the signal raised.
        kept: What is kept, and what to do next, in sentences.
    """
    is_terminated = isinstance(interrupt, TerminatedError)
    number = signal.SIGTERM if is_terminated else signal.SIGINT
    return StoppedError(
        f"{'Terminated' if is_terminated else 'Interrupted'}. {kept}", EXIT_CODES[number]
    )


@contextlib.contextmanager
def if_interrupted(kept: str) -> Iterator[None]:
    """Raise StoppedError, which says what is kept, if a signal interrupts the block."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise stopped_by(interrupt, kept) from None


@contextlib.contextmanager
def handled_signals(handle: Callable[[signal.Signals], None], reply: str) -> Iterator[None]:
    """Handle SIGINT and SIGTERM within the block; a second one ends the process at once.

    Python calls a handler only between two of its own instructions, and an op of TensorFlow may
    take minutes. So a thread, which the system wakes up, replies, and ends the process if it must.

    Args:
        handle: Called with the first signal, in the main thread.
        reply: What to say at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may have handlers.
        return

    def handle_first(number: int, _: FrameType | None) -> None:
        for each in EXIT_CODES:
            signal.signal(each, _exit_now)
        handle(signal.Signals(number))

    signal_arrived.clear()
    receiver, sender = os.pipe()
    if os.name != "nt":  # Windows needs it for sockets only.
        os.set_blocking(sender, False)
    wakeup = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    thread = threading.Thread(target=_reply, args=(receiver, reply), daemon=True)
    thread.start()
    before = {each: signal.signal(each, handle_first) for each in EXIT_CODES}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(sender)
        thread.join()
        os.close(receiver)


def _reply(receiver: int, reply: str) -> None:
    """Reply to the first signal whose number is received, and end the process at the second."""
    import logging

    from library.logging import discard_native_messages

    is_second = False
    while number := os.read(receiver, 1):
        if number[0] not in EXIT_CODES:
            continue  # Another signal that the process handles.
        if is_second:
            _exit_now(number[0])
        is_second = True
        signal_arrived.set()
        logging.getLogger(__name__).info(reply)
        discard_native_messages()


def _exit_now(number: int, _: FrameType | None = None) -> None:
    """End the process, without the default action, after which the exit code would be another."""
    os._exit(EXIT_CODES[signal.Signals(number)])


def _raise(number: signal.Signals) -> None:
    """Interrupt the main thread."""
    raise KeyboardInterrupt if number == signal.SIGINT else TerminatedError


def _is_explained(error: BaseException) -> bool:
    """Return whether an error's one line says enough, without messages of native libraries."""
    explained = (UserError, OSError, KeyboardInterrupt, SystemExit)
    return isinstance(error, explained) or is_out_of_memory(error)


def _describe(error: Exception) -> tuple[object, int]:
    """Return the text to show for an error, and the exit code."""
    if is_out_of_memory(error):
        is_batch = not isinstance(error, MemoryError) or _computes_batch(error)
        return f"out of memory{': reduce batch_size or image_size' if is_batch else ''}", 1
    if isinstance(error, UserError):
        return error, error.exit_code
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{reason_of(error)}{where}", 1
    text = f"unexpected {type(error).__name__}: {error} (--verbose shows where)"
    return missing_package(error) or text, 1


def _computes_batch(error: MemoryError) -> bool:
    """Return whether TensorFlow or Keras raised the error, as it does for a batch."""
    frames = traceback.walk_tb(error.__traceback__)
    modules = {frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in frames}
    return not modules.isdisjoint(("tensorflow", "keras"))


def _show(prefix: str, text: object, exit_code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"{prefix}{printable(text)}", file=sys.stderr)
    return exit_code
