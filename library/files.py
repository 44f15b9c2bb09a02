"""Files and folders that are written whole or not at all, file locks, and content hashes."""

import contextlib
import glob
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from library.errors import (
    CheckpointError,
    UnreachableError,
    UserError,
    printable,
    reason_of,
    stopped_by,
)

_Result = TypeVar("_Result")
# Nothing under a name with this ending is ever read: killed processes leave it behind.
PARTIAL = ".partial"
# In the names of what this machine's processes write: only their ids mean something here.
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
# The folder that is being replaced, between the two renames that replace it.
PREVIOUS = ".previous"
# In a sealed folder: the SHA-256 of every other file.
SEAL = "hashes.json"
# A lock is tried for this long before it counts as taken: its holder may just be releasing it.
_LOCK_SECONDS = 0.2

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def new_file(path: str | Path, *, is_durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file that gets the name `path` if the block succeeds.

    Missing folders are made. On an error an existing file stays as it was.

    Args:
        path: The file.
        is_durable: Whether to wait for the disk, so that the file is whole after a power failure.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        partial.replace(path)
        if is_durable:
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path: str | Path, content: str | bytes) -> None:
    """Write bytes, or a str as UTF-8, whole or not at all."""
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` if the block succeeds.

    On an error an existing folder stays as it was. A crash between the two renames leaves it under
    another name: `restore_folder` renames it back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    partial.mkdir()
    try:
        yield partial
        sync_tree(partial)
        restore_folder(path)
        previous = path.with_name(path.name + PREVIOUS)
        if path.exists():
            path.rename(previous)
        partial.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def explain_write_errors(what: str) -> Iterator[None]:
    """Turn an OSError within the block, such as a full disk, into a UserError about `what`.

    For what `new_folder` and `new_file` write: the previous version is intact.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{what} could not be saved ({reason_of(error)}); what was saved before is intact: "
            "check that disk, then run the same command to resume"
        ) from error


def temporary_file_error(error: OSError) -> UserError:
    """Return what to raise if a temporary file can't be written."""
    return UserError(
        f"{tempfile.gettempdir()} can't be written: {reason_of(error)}; free some space, or set "
        "TMPDIR to a folder on another disk"
    )


@contextlib.contextmanager
def resumable(folder: str | Path, saved: str | None) -> Iterator[None]:
    """Make errors within the block say that the same command resumes from what is saved.

    Args:
        folder: Where the block writes.
        saved: What is kept, in the plural; None: nothing.
    """
    hint = f"{saved} are kept; run the same command to resume"
    try:
        yield
    except OSError as error:
        text = f"{folder} can't be written: {reason_of(error)}"
        raise UserError(f"{text}; {hint}" if saved else text) from error
    except UnreachableError as error:
        raise UnreachableError(f"{error}; {hint}" if saved else str(error)) from error
    except KeyboardInterrupt as interrupt:
        if not saved:
            raise
        raise stopped_by(interrupt, f"{hint[:1].upper()}{hint[1:]}.") from None


def restore_folder(path: str | Path) -> None:
    """Undo an interrupted replacement of the folder `path`, if there was one."""
    path = Path(path)
    previous = path.with_name(path.name + PREVIOUS)
    if previous.is_dir():
        if path.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(path)
            sync_folder(path.parent)


def current_folder(path: str | Path) -> Path:
    """Return where the folder `path` is: under its name or, while it is replaced, another one."""
    path = Path(path)
    previous = path.with_name(path.name + PREVIOUS)
    # In this order: while a writer replaces it, the folder moves from the one name to the other.
    return previous if not path.is_dir() and previous.is_dir() else path


def remove_partials(folder: str | Path, name: str | None = None) -> list[str]:
    """Delete what killed processes left half-written in a folder.

    Call it only while no other process writes there: its files look the same.

    Args:
        folder: The folder.
        name: Delete only what would have become this file or folder.

    Returns:
        The names deleted, sorted.
    """
    partials = sorted(Path(folder).glob(f".*{PARTIAL}"))
    if name is not None:
        partials = [each for each in partials if each.name.rsplit(".", 3)[0] == f".{name}"]
    for partial in partials:
        _remove(partial)
    return [partial.name for partial in partials]


def sync_folder(folder: str | Path) -> None:
    """Make renames and deletions inside a folder survive a power cut."""
    if os.name == "nt":
        return  # Windows can't open a folder; its file system journals renames.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(root)


def _partial_path(path: Path) -> Path:
    """Return a free name beside a path, after removing what killed processes left of it there."""
    beginning = f".{path.name}."
    for other in path.parent.glob(f"{glob.escape(beginning)}*.{_HOST}*{PARTIAL}"):
        process, *more = other.name.removeprefix(beginning).split(".")
        # A longer rest is that of another file, whose name begins like this one's.
        if len(more) == 2 and process.isdecimal() and not _is_running(int(process)):
            _remove(other)
    # In the same folder, because a rename is atomic only within one file system.
    return path.with_name(f"{beginning}{os.getpid()}.{_HOST}{secrets.token_hex(4)}{PARTIAL}")


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # There the call below would end the process.
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # that of another user
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | Path, what: str, advice: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold the lock on a file within the block; the file exists only as long.

    The lock ends with its process, however that ends. On a file system without locks, nobody is
    stopped.

    Args:
        path: The lock file.
        what: What is locked, as the subject of the message about its holder.
        advice: What to do if another process holds it.
        wait: Log the holder and wait for it, instead of raising.

    Raises:
        UserError: Another process holds the lock, named by its id and its host.
    """
    from filelock import FileLock, Timeout  # imported late: --help does without it

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        in_use = f"{what} is in use by {_read_holder(path)}"
        if not wait:
            raise UserError(f"{in_use}: {advice}") from None
        logger.info("%s; waiting for it", in_use)
        lock.acquire()
    except OSError:
        pass  # The file system has no locks.
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        # Delete the file before the release: afterwards it may be the next holder's.
        path.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def in_use(paths: Iterable[str | Path]) -> Iterator[None]:
    """Let `is_in_use` say so of some files within the block; they may lie on a read-only disk."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            with contextlib.suppress(ImportError, OSError):
                import fcntl  # only on Unix

                fcntl.flock(stack.enter_context(Path(path).open("rb")), fcntl.LOCK_SH)
        yield


def is_in_use(path: str | Path) -> bool:
    """Return whether another process is within `in_use` of a file; False if there are no locks."""
    try:
        import fcntl

        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False


def _read_holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip() or "another process"
    return "another process"


def open_regular_file(path: str | Path) -> FileIO:
    """Open a regular file for reading, unbuffered.

    Raises OSError for anything else: reading a pipe would wait for a writer, perhaps forever.
    """
    file = FileIO(path, opener=open_without_waiting)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError("it is not a regular file")


def open_without_waiting(path: str, flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a file, also of a pipe that nobody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_regular_file(path: str | Path) -> bytes:
    """Return the bytes of a regular file. Raises OSError for anything else."""
    with open_regular_file(path) as file:
        # None: a special file that looks regular has nothing to say yet.
        return file.readall() or b""


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also if brackets are nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_folder(folder: str | Path) -> None:
    """Write the hashes of all files below a folder into it, for `find_damage` to compare."""
    write_file(Path(folder) / SEAL, json.dumps(_hash_files(Path(folder)), indent=2) + "\n")


def find_damage(folder: str | Path) -> str | None:
    """Return what is wrong with a sealed folder, in a few words, or None if nothing is.

    Raises CheckpointError if a file can't be read, which says nothing about its contents.
    """
    folder = Path(folder)
    try:
        sealed = parse_json(read_regular_file(folder / SEAL))
        current = _hash_files(folder)
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except PermissionError as error:
        raise CheckpointError(f"{error.filename} can't be read: check its permissions") from error
    except (OSError, ValueError):
        sealed = None
    if not isinstance(sealed, dict):
        return f"{SEAL} cannot be read"
    for name in sorted(sealed.keys() | current.keys()):
        if sealed.get(name) != current.get(name):
            problem = "is missing" if name not in current else "is not what was written"
            return f"{printable(name)} {problem}"
    return None


def read_sealed(folder: str | Path, read: Callable[[Path], _Result]) -> _Result:
    """Return read(path) of a sealed folder, again if another process replaces it meanwhile.

    Args:
        folder: The folder.
        read: A function of the folder's current path; it changes nothing.
    """
    while True:
        before = _version_of(folder)
        try:
            result = read(before[0])
        except (UserError, OSError):
            if _version_of(folder) == before:
                raise
        else:
            if _version_of(folder) == before:
                return result


def _version_of(folder: str | Path) -> tuple[Path, bytes | None]:
    """Return the path and the hashes of a sealed folder, which change if it is replaced."""
    path = current_folder(folder)
    try:
        return path, read_regular_file(path / SEAL)
    except OSError:
        return path, None


def _hash_files(folder: Path) -> dict[str, str]:
    files = sorted(each for each in folder.rglob("*") if each.is_file() and each.name != SEAL)
    return {each.relative_to(folder).as_posix(): sha256_of(each) for each in files}
