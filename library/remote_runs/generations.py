"""What a bucket holds of a folder: generations, each of them complete or absent.

- `.run/objects/<SHA-256>`: the bytes of a file; several generations may share it
- `.run/generations/<number>-<hash>.json`: the files of one generation, written last; the hash is of
  the JSON itself, so that a damaged one is never read
- everything but checkpoints once more under its own name, for TensorBoard and for people; the
  project itself does not read these
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from library.dataset.storage import (
    NotFoundError,
    explain_store_errors,
    list_folder,
    open_store,
)
from library.errors import CheckpointError, UserError
from library.files import SEAL, parse_json, sha256_of
from library.messages import counted

logger = logging.getLogger(__name__)

# In the folder's URL: what people need not look at.
INNER = ".run"
_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.json")
_CHECKPOINT = re.compile(r"step_\d+")
# Concurrent downloads: a single one would mostly wait for the network.
_THREADS = 8


class Entry(NamedTuple):
    """A file of a generation: the hash of its bytes, and their number."""

    sha256: str
    size: int


# Path in the folder, with slashes → the file.
Files = Mapping[str, Entry]


@dataclass(frozen=True)
class Generation:
    """The files of a folder at one moment; without a name, none are in the bucket yet."""

    name: str = ""
    files: Files = field(default_factory=dict)

    @property
    def checkpoints(self) -> frozenset[str]:
        """The folders of its checkpoints."""
        return frozenset(filter(None, map(checkpoint_of, self.files)))


@dataclass(frozen=True)
class Upload:
    """How to upload a generation.

    Attributes:
        find: Returns the local path of the bytes of a file.
        check: Called before the generation becomes valid; raises if it must not.
        progress: Called after each part that was sent.
    """

    find: Callable[[Entry], Path]
    check: Callable[[], object] = lambda: None
    progress: Callable[[], object] = lambda: None


def checkpoint_of(path: str) -> str:
    """Return the folder of the checkpoint that a file is in; "" if it is in none."""
    folder = PurePosixPath(path).parent
    return str(folder) if _CHECKPOINT.fullmatch(folder.name) else ""


class RemoteFolder:
    """The generations at a URL. Only the holder of its lease may `publish` there."""

    def __init__(self, url: str, keep: int | None = None) -> None:
        """Remember where it is.

        Args:
            url: The folder's URL.
            keep: Number of generations with different checkpoints to keep; None: all.
        """
        self.url, self._keep = url.rstrip("/"), keep
        # What was read or written last.
        self.current = Generation()
        self._read: dict[str, Generation | None] = {}
        self._seen: set[str] = set()
        self._sent: set[str] = set()

    def names(self) -> list[str]:
        """Return the names of the generations, newest first."""
        try:
            found = [name for name, _ in list_folder(f"{self.url}/{INNER}/generations")]
        except NotFoundError:
            return []
        return sorted((each for each in found if _NAME.fullmatch(each)), reverse=True)

    def read(self, name: str) -> Generation | None:
        """Return a generation; None if the list of its files is missing or damaged."""
        if name not in self._read:
            try:
                content = self.read_object(f"{INNER}/generations/{name}")
            except NotFoundError:
                return None
            self._read[name] = _parse(name, content)
        return self._read[name]

    def restore(
        self,
        folder: Path,
        is_wanted: Callable[[str], bool],
        find_names: Callable[[], Sequence[str]],
    ) -> Generation:
        """Download the newest complete generation; log those that are damaged.

        Args:
            folder: A folder for it, with intact files of any generation or none.
            is_wanted: Returns whether to download the file of a path.
            find_names: Returns the names of the generations to try, newest first.

        Returns:
            The generation; one without a name if there is none.

        Raises:
            CheckpointError: All are damaged.
            UnreachableError: The store does not answer.
        """
        names = find_names()
        for name in names:
            generation = self.read(name)
            damage = self._download(generation, folder, is_wanted) if generation else "its list"
            if damage and name not in self.names():
                # A training has replaced it meanwhile.
                return self.restore(folder, is_wanted, find_names)
            if generation and damage is None:
                self.current, self._seen = generation, self._seen | {*names}
                return generation
            older = "" if name == names[-1] else "; trying the one before it"
            logger.warning(f"generation {_number(name)} of {self.url} is damaged: {damage}{older}")
        if names:
            raise CheckpointError(
                f"all that is in {self.url} is damaged; choose another --run_dir to start over"
            )
        return Generation()

    def adopt(self, names: Sequence[str]) -> None:
        """Begin with the first of some generations, whose files are known to be intact.

        Args:
            names: All generations, newest first; none if there are none.
        """
        self.current = (self.read(names[0]) if names else None) or Generation()
        self._seen |= {*names}

    def has(self, sha256: str) -> bool:
        """Return whether the bucket has the object of a hash, for certain."""
        return sha256 in self._sent or sha256 in {e.sha256 for e in self.current.files.values()}

    def publish(self, files: Files, upload: Upload) -> None:
        """Upload a generation, then remove those that are no longer kept.

        Args:
            files: All its files, but for those that other commands have added meanwhile.
            upload: How to upload them.
        """
        self._write(lambda names: {**self._foreign_files(names), **files}, upload)

    def add(self, files: Files, upload: Upload) -> None:
        """Add files to whatever generation is the newest, beside a training perhaps.

        Args:
            files: The files.
            upload: How to upload them.
        """

        def merge(names: Sequence[str]) -> Files:
            self.current = next(filter(None, map(self.read, names)), Generation())
            return {**self.current.files, **files}

        self._write(merge, upload)

    def read_object(self, path: str) -> bytes:
        """Return the bytes of an object. Raise NotFoundError."""
        store, root = open_store(self.url)
        with explain_store_errors(self.url):
            return store.cat_file(f"{root}/{path}")

    def write(self, path: str, content: bytes, mode: str = "overwrite") -> None:
        """Write an object, whole; with mode "create", raise FileExistsError if it is there."""
        store, root = open_store(self.url)
        target = f"{root}/{path}"
        try:
            with explain_store_errors(self.url, "written"):
                _make_parent(store, target)
                store.pipe_file(target, content, mode=mode)
        except UserError as error:
            if isinstance(error.__cause__, FileExistsError):
                raise error.__cause__ from None
            raise

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects, if they are there."""
        store, root = open_store(self.url)
        with explain_store_errors(self.url, "written"):
            for path in paths:
                try:
                    store.rm_file(f"{root}/{path}")
                except FileNotFoundError:
                    continue

    def _write(self, choose_files: Callable[[Sequence[str]], Files], upload: Upload) -> None:
        """Write a generation of the files that are chosen for the names of the earlier ones."""
        while True:
            names = self.names()
            files = choose_files(names)
            for entry in files.values():
                if not self.has(entry.sha256):
                    self._put(upload.find(entry), f"{INNER}/objects/{entry.sha256}", upload)
                    self._sent.add(entry.sha256)
            upload.check()
            content = json.dumps({"version": 1, "files": files}, indent=1).encode()
            number = 1 + max(map(_number, names), default=0)
            name = f"{number:08d}-{hashlib.sha256(content).hexdigest()[:16]}.json"
            self.write(f"{INNER}/generations/{name}", content)
            before, self.current = self.current, Generation(name, files)
            self._read[name] = self.current
            self._seen |= {name, *names}
            self._copy_to_own_names(before.files, upload)
            # Another command may have written one at the same time.
            if self._seen.issuperset(self.names()):
                self._prune([name, *names])
                return

    def _foreign_files(self, names: Iterable[str]) -> Files:
        """Return what other commands, such as `evaluate`, have added to the run meanwhile."""
        newest = next((name for name in names if name not in self._seen), None)
        added = self.read(newest) if newest else None
        files = added.files if added else {}
        sealed = {_parent(path) for path in files if PurePosixPath(path).name == SEAL}
        foreign = {
            path: entry
            for path, entry in files.items()
            if path not in self.current.files and _parent(path) not in sealed
        }
        self._sent |= {each.sha256 for each in foreign.values()}
        return foreign

    def _put(self, file: Path, path: str, upload: Upload) -> None:
        from fsspec.callbacks import Callback

        store, root = open_store(self.url)
        target = f"{root}/{path}"
        callback = Callback(hooks={"progress": lambda *_, **__: upload.progress()})
        with explain_store_errors(self.url, "written"):
            _make_parent(store, target)
            store.put_file(str(file), target, callback=callback)
        upload.progress()

    def _copy_to_own_names(self, before: Files, upload: Upload) -> None:
        """Let people and TensorBoard find the files of the current generation."""
        store, root = open_store(self.url)
        files = self.current.files
        for path, entry in files.items():
            if checkpoint_of(path) or before.get(path) == entry:
                continue
            with explain_store_errors(self.url, "written"):
                _make_parent(store, f"{root}/{path}")
                store.cp_file(f"{root}/{INNER}/objects/{entry.sha256}", f"{root}/{path}")
            upload.progress()
        self.remove(each for each in before if each not in files and not checkpoint_of(each))

    def _prune(self, names: Iterable[str]) -> None:
        """Keep the last generations: of those with the same checkpoints, the newest alone."""
        kept: dict[Any, Generation] = {}
        dropped: list[tuple[str, Generation | None]] = []
        for name in names:
            generation = self.read(name)
            key = (generation and generation.checkpoints) or name
            is_full = self._keep is not None and len(kept) >= self._keep
            if generation is None or key in kept or is_full:
                dropped.append((name, generation))
            else:
                kept[key] = generation
        needed = {entry.sha256 for each in kept.values() for entry in each.files.values()}
        for name, generation in dropped:
            # The list goes first, so that none names an object that is missing.
            self.remove([f"{INNER}/generations/{name}"])
            unused = {each.sha256 for each in (generation or Generation()).files.values()} - needed
            self.remove(f"{INNER}/objects/{each}" for each in unused)
            self._sent -= unused
            self._read.pop(name, None)

    def _download(
        self, generation: Generation, folder: Path, is_wanted: Callable[[str], bool]
    ) -> str | None:
        """Download a generation's files. Return what is wrong with one of them, or None."""
        wanted = {path: entry for path, entry in generation.files.items() if is_wanted(path)}
        size = sum(each.size for each in wanted.values())
        files = counted(len(wanted), "file")
        logger.info(f"downloading {self.url}: {files}, {size / 1e6:,.1f} MB")

        def fetch(path: str) -> str | None:
            return self._fetch(wanted[path], path, folder / path)

        with ThreadPoolExecutor(_THREADS) as executor:
            return next(filter(None, executor.map(fetch, wanted)), None)

    def _fetch(self, entry: Entry, path: str, file: Path) -> str | None:
        """Download a file unless it is there. Return what is wrong with it, or None."""
        if file.is_file() and sha256_of(file) == entry.sha256:
            return None
        url = f"{self.url}/{INNER}/objects/{entry.sha256}"
        store, source = open_store(url)
        file.parent.mkdir(parents=True, exist_ok=True)
        # It may be a link to another copy's.
        file.unlink(missing_ok=True)
        try:
            with explain_store_errors(url):
                store.get_file(source, str(file))
        except NotFoundError:
            return f"{path} is missing"
        return None if sha256_of(file) == entry.sha256 else f"{path} is not what was written"


def find_folder(url: str) -> tuple[RemoteFolder, str] | None:
    """Return the nearest folder with generations around a URL, and the path in it; None: none."""
    protocol, _, rest = url.rstrip("/").partition("://")
    if protocol in ("http", "https"):
        return None  # These have no folders to list.
    parts = rest.split("/")
    for length in range(len(parts), 0, -1):
        folder = RemoteFolder(f"{protocol}://{'/'.join(parts[:length])}")
        if folder.names():
            return folder, "/".join(parts[length:])
    return None


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _parse(name: str, content: bytes) -> Generation | None:
    """Return the generation that a JSON text lists; None if it is not what was written."""
    if hashlib.sha256(content).hexdigest()[:16] not in name:
        return None
    try:
        files = parse_json(content)["files"]
        entries = {path: Entry(str(sha256), int(size)) for path, (sha256, size) in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    # Nothing outside the folder is written, whoever made the list.
    is_safe = all(not Path(each).anchor and ".." not in Path(each).parts for each in entries)
    return Generation(name, entries) if is_safe else None


def _make_parent(store: Any, path: str) -> None:
    """Make the folder of an object where there are folders: on a disk, on a server for SFTP."""
    if not store.async_impl:
        store.makedirs(path.rpartition("/")[0], exist_ok=True)
