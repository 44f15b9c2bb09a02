"""The local copy of a folder in a bucket: restored from a generation, captured for the next one."""

import contextlib
import itertools
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.errors import UserError, reason_of
from library.files import (
    PARTIAL,
    PREVIOUS,
    SEAL,
    new_folder,
    parse_json,
    read_regular_file,
    sha256_of,
    write_file,
)
from library.remote_runs.generations import Entry, Files, RemoteFolder, checkpoint_of

logger = logging.getLogger(__name__)

# A folder that is being replaced is complete a moment later.
_ATTEMPTS, _PAUSE_SECONDS = 50, 0.1
# What only resuming and TensorBoard need.
_BULK = "/logs/", "/variables.npz"


class _ReplacedError(Exception):
    """A folder is replaced while it is captured."""


@dataclass(frozen=True)
class Marks:
    """What changes if any file does, and if a sealed folder does: a checkpoint or a snapshot."""

    all: frozenset[Any] = frozenset()
    seals: frozenset[Any] = frozenset()


@dataclass
class LocalCopy:
    """The local copy of a RemoteFolder.

    Attributes:
        remote: Where the generations are.
        folder: The copy.
        excluded: A folder in it that is not for the bucket; None: there is none.
    """

    remote: RemoteFolder
    folder: Path
    excluded: Path | None = None
    # Path → what its hash depends on, and the file.
    _hashes: dict[str, tuple[Any, Entry]] = field(default_factory=dict)

    def beside(self, name: str) -> Path:
        """Return the path of something beside the copy that is about it."""
        return self.folder.with_name(f".{self.folder.name}.{name}")

    @property
    def note(self) -> dict[str, Any]:
        """The generation that the copy is in step with, its files, and the token of the lease."""
        with contextlib.suppress(OSError, ValueError):
            note = parse_json(self.beside("generation.json").read_bytes())
            if isinstance(note, dict):
                return note
        return {}

    def write_note(self, token: str = "") -> None:
        """Remember that the copy is in step with the remote's current generation."""
        current = self.remote.current
        note = {"generation": current.name, "files": current.files, "token": token}
        write_file(self.beside("generation.json"), json.dumps(note))

    def restore(self, *, only: str = "", with_bulk: bool = False) -> None:
        """Download the newest complete generation, unless the copy is in step with it.

        Args:
            only: Path of a folder that the generation must have; "": any generation.
            with_bulk: Whether to download logs, and the variables of checkpoints not in `only`.

        Raises:
            CheckpointError: All generations are damaged.
            UnreachableError: The store does not answer.
            UserError: The disk is full.
        """

        def is_wanted(path: str) -> bool:
            is_bulk = any(each in f"/{path}" for each in _BULK)
            return with_bulk or not is_bulk or bool(only and path.startswith(f"{only}/"))

        def find_names() -> list[str]:
            return [name for name in remote.names() if not only or _has_folder(remote, name, only)]

        remote = self.remote
        names = find_names()
        if not names or (self.note.get("generation") == names[0] and self.folder.is_dir()):
            remote.adopt(names)
            return
        try:
            # The copy is replaced whole, or stays as it was.
            with new_folder(self.folder) as partial:
                for path, file in self._walk():
                    _link(file, partial / path)
                generation = remote.restore(partial, is_wanted, find_names)
                _remove_others(partial, generation.files)
                self.beside("generation.json").unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder} can't be written: {reason_of(error)}; free some space, or set "
                "XDG_CACHE_HOME to a folder on a larger disk"
            ) from error
        self.write_note()

    def move_aside_unsent(self) -> None:
        """Rename the copy if it has checkpoints or snapshots that never got into the bucket."""
        sent, found = self.note.get("files", {}), _without_older(dict(self._walk()))
        seals = {path: file for path, file in found.items() if path.endswith(SEAL)}
        if all(sent.get(path, [""])[0] == sha256_of(file) for path, file in seals.items()):
            return
        names = (f"{self.folder.name}.{number}" for number in itertools.count(1))
        free = next(p for p in map(self.folder.with_name, names) if not p.exists())
        self.folder.rename(free)
        logger.warning(
            f"{self.remote.url} is not as this machine left it, and the training resumes from "
            f"there; what was not uploaded from here is now in {free}"
        )

    def marks(self) -> Marks:
        """Return the Marks of the files as of now; empty while they can't be read."""
        with contextlib.suppress(OSError, _ReplacedError):
            found = {(path, _version(file)) for path, file in self._walk()}
            seals = {each for each in found if each[0].endswith(SEAL)}
            return Marks(frozenset(found), frozenset(seals))
        return Marks()

    def capture(self, *, with_checkpoints: bool = True) -> Files:
        """Return the files as of now; what the bucket lacks of them is kept in `staged`.

        The checkpoints are captured first: on a resume, the best snapshot may be newer than the
        checkpoint, but never older. Of several checkpoints in a folder, only the newest is taken.

        Args:
            with_checkpoints: Whether to include checkpoints.

        Raises:
            UserError: Files are replaced all the time.
        """
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError, _ReplacedError):
                return self._capture_once(with_checkpoints)
            time.sleep(_PAUSE_SECONDS)
        raise UserError(f"{self.folder} can't be read: it keeps changing")

    def staged(self, entry: Entry) -> Path:
        """Return the path of a captured file, which training may have removed meanwhile."""
        return self.beside("upload") / entry.sha256

    def _capture_once(self, with_checkpoints: bool) -> Files:
        shutil.rmtree(self.beside("upload"), ignore_errors=True)
        self.beside("upload").mkdir(parents=True)
        found = dict(self._walk())
        wanted = _without_older(found)
        files: dict[str, Entry] = {}
        for path in sorted(wanted, key=lambda each: not checkpoint_of(each)):
            if checkpoint_of(path) and not with_checkpoints:
                continue
            if path.endswith(SEAL):
                files |= self._capture_sealed(path, found[path])
            elif path.rpartition("/")[0] + f"/{SEAL}" not in found:
                files[path] = self._capture_file(path, found[path])
        return files

    def _capture_sealed(self, path: str, seal: Path) -> Files:
        """Return the files of a sealed folder, whose hashes are known."""
        content = read_regular_file(seal)
        folder, parent = seal.parent, path[: -len(SEAL)]
        entries: dict[str, Entry] = {}
        for name, sha256 in parse_json(content).items():
            entries[parent + name] = Entry(sha256, (folder / name).stat().st_size)
            if not self.remote.has(sha256):
                _link(folder / name, self.staged(entries[parent + name]))
        entries[path] = self._capture_file(path, seal)
        if read_regular_file(seal) != content:
            raise _ReplacedError
        return entries

    def _capture_file(self, path: str, file: Path) -> Entry:
        """Return a file, of which others may append to the original."""
        version = _version(file)
        before, entry = self._hashes.get(path, (None, Entry("", 0)))
        if before == version and self.remote.has(entry.sha256):
            return entry
        copy = self.beside("upload") / "copy"
        shutil.copyfile(file, copy)
        entry = Entry(sha256_of(copy), copy.stat().st_size)
        copy.replace(self.staged(entry))
        self._hashes[path] = version, entry
        return entry

    def _walk(self) -> Iterator[tuple[str, Path]]:
        """Yield the path and the file of all that is whole."""
        for root, folders, names in os.walk(self.folder):
            here = Path(root)
            replaced = {each.removesuffix(PREVIOUS) for each in folders if each.endswith(PREVIOUS)}
            if replaced - {*folders}:
                raise _ReplacedError
            folders[:] = sorted(
                each
                for each in folders
                if not each.startswith(".")
                and not each.endswith(PREVIOUS)
                and here / each != self.excluded
            )
            for name in sorted(names):
                is_own = name.startswith(".") or name.endswith((PARTIAL, ".lock"))
                if not is_own and (here / name).is_file():
                    yield (here / name).relative_to(self.folder).as_posix(), here / name


def _without_older(found: dict[str, Path]) -> dict[str, Path]:
    """Return files without those of checkpoints that have a newer one beside them."""
    newest: dict[str, str] = {}
    for each in sorted(filter(None, map(checkpoint_of, found))):
        newest[each.rpartition("/")[0]] = each
    return {p: f for p, f in found.items() if checkpoint_of(p) in ("", *newest.values())}


def _has_folder(remote: RemoteFolder, name: str, folder: str) -> bool:
    generation = remote.read(name)
    return generation is not None and any(p.startswith(f"{folder}/") for p in generation.files)


def _remove_others(folder: Path, files: Files) -> None:
    """Remove all files but some, and empty folders; they may be of a damaged generation."""
    for root, _, names in os.walk(folder, topdown=False):
        here = Path(root)
        for name in names:
            if (here / name).relative_to(folder).as_posix() not in files:
                (here / name).unlink()
        if here != folder and not any(here.iterdir()):
            here.rmdir()


def _version(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _link(file: Path, link: Path) -> None:
    """Give a file that is never changed in place another name, or copy it."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists():
        return
    try:
        link.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(file, link)
