"""Files and folders that are written whole or not at all, file locks, and content hashes."""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from library.errors import UserError, printable, reason_of

# Nothing under a name that ends so is ever read; it is what a killed process leaves behind.
PARTIAL = ".partial"
# A folder's predecessor, between the two renames that replace it.
PREVIOUS = ".previous"
# In a sealed folder: each other file's SHA-256.
SEAL = "hashes.json"
# A lock is tried for this long before it counts as taken: its holder may just be releasing it.
_LOCK_SECONDS = 0.2

logger = logging.getLogger(__name__)


def _partial_path(path):
    # In the same folder, because a rename is atomic only within one file system.
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")


def sync_folder(folder):
    """Make renames and deletions inside `folder` survive a power cut."""
    if os.name == "nt":
        return  # Windows has no handle for this; its renames are journalled.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_file(path):
    """Return a binary file that gets the name `path` when the block ends well, and none otherwise.

    Folders on the way are made. On an error the old file, if any, stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path, content):
    """Write bytes, or a str as UTF-8, whole or not at all."""
    with new_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def new_folder(path):
    """Return an empty folder that takes the place of `path` when the block ends well.

    On an error the old folder, if any, stays as it was. A crash between the two renames leaves
    the old one under another name: `restore_folder` puts it back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(path)
    partial.mkdir()
    try:
        yield partial
        _sync_tree(partial)
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
def explain_write_errors(what):
    """Within the block, a disk that is full, say, raises UserError: what it was, and what is left.

    For what `new_folder` and `new_file` write: whatever they fail with, the old one is there.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{what} could not be saved ({reason_of(error)}); what was saved before is "
            "intact: see to that disk, then start again to go on from there"
        ) from error


def restore_folder(path):
    """Undo a replacement of the folder `path` that was cut short; do nothing otherwise."""
    path = Path(path)
    previous = path.with_name(path.name + PREVIOUS)
    if previous.is_dir():
        if path.exists():
            shutil.rmtree(previous)
        else:
            previous.rename(path)
            sync_folder(path.parent)


def current_folder(path):
    """Return where the folder `path` is: under its name, or, while it is replaced, beside it."""
    path = Path(path)
    previous = path.with_name(path.name + PREVIOUS)
    # Asked in this order, for a reader beside the writer: it goes from one name to the other.
    return previous if not path.is_dir() and previous.is_dir() else path


def read_sealed(folder, read):
    """Give `read(where)` of the sealed folder, and again if another process replaces it meanwhile.

    `where` is its path for the moment. Changes nothing.
    """
    while True:
        before = _version(folder)
        try:
            result = read(before[0])
        except (UserError, OSError):
            if _version(folder) == before:
                raise
        else:
            if _version(folder) == before:
                return result


def _version(folder):
    """Return what differs from one sealed folder to its successor: where it is, and its hashes."""
    where = current_folder(folder)
    try:
        return where, (where / SEAL).read_bytes()
    except OSError:
        return where, None


def remove_partials(folder, name=None):
    """Delete what killed processes left half-written in `folder`. Give the names deleted, sorted.

    With a `name`, only what would have become that file or folder. Call it only where no other
    process writes: a live writer's file looks the same.
    """
    partials = sorted(Path(folder).glob(f".*{PARTIAL}"))
    if name is not None:
        partials = [each for each in partials if each.name.rsplit(".", 3)[0] == f".{name}"]
    for partial in partials:
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
    return [partial.name for partial in partials]


@contextlib.contextmanager
def locked(path: Path, what: str, advice: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold the lock on a file within the block; the file exists only as long.

    The lock ends with its process, however that ends. A file system that has no locks stops nobody.

    Args:
        path: The lock file.
        what: What is locked, as the subject of the message about its holder.
        advice: What to do if another process holds it.
        wait: Log the holder and wait for it, instead of raising.

    Raises:
        UserError: Another process holds the lock, named by its id and its host.
    """
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
        pass  # A file system without locks.
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        # Unlink before the release: afterwards the file may be the next holder's.
        path.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip() or "another process"
    return "another process"


def sha256_of(path):
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_folder(folder):
    """Write the hashes of all files below `folder` into it, so that `find_damage` can compare."""
    write_file(Path(folder) / SEAL, _hashes_text(folder))


def find_damage(folder):
    """Return what is wrong with a sealed folder, in a few words, or None if nothing is."""
    folder = Path(folder)
    try:
        sealed = json.loads((folder / SEAL).read_bytes())
        current = json.loads(_hashes_text(folder))
    except FileNotFoundError:
        return f"{SEAL} is missing"
    except (OSError, ValueError, RecursionError):
        return f"{SEAL} cannot be read"
    if not isinstance(sealed, dict):
        return f"{SEAL} cannot be read"
    for name in sorted(sealed.keys() | current.keys()):
        if sealed.get(name) != current.get(name):
            what = "is missing" if name not in current else "is not what was written"
            return f"{printable(name)} {what}"
    return None


def _hashes_text(folder):
    folder = Path(folder)
    files = sorted(each for each in folder.rglob("*") if each.is_file() and each.name != SEAL)
    hashes = {each.relative_to(folder).as_posix(): sha256_of(each) for each in files}
    return json.dumps(hashes, indent=2) + "\n"


def _sync_tree(folder):
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(root)
