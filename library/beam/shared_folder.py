"""The folder that this machine and Beam's workers share: on a disk that all mount, or at a URL.

A worker whose files are gone belongs to a conversion that has ended, and fails.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from library.dataset.storage import NotFoundError, explain_store_errors, open_store, read_url
from library.errors import UserError
from library.files import write_file


class SharedFolder(Protocol):
    """A folder of files; picklable, for workers."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raise UserError if it is gone."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""

    def new_path(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local path; what the block writes there is the file `name` afterwards."""

    def names(self) -> set[str]:
        """Return the names of all files."""

    def move(self, name: str, target: str) -> None:
        """Move a file to a path or URL out of the folder, replacing what is there."""

    def remove(self) -> None:
        """Remove the folder and all in it, if it is there."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk."""

    path: Path

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raise UserError if it is gone."""
        try:
            return (self.path / name).open("rb")
        except FileNotFoundError:
            raise _gone(self.path / name) from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all. Raise UserError if the folder is gone."""
        if not self.path.is_dir():
            raise _gone(self.path)
        write_file(self.path / name, content)

    @contextmanager
    def new_path(self, name: str) -> Iterator[Path]:
        """Yield the path of a file to be written."""
        yield self.path / name

    def names(self) -> set[str]:
        """Return the names of all files."""
        return {each.name for each in self.path.iterdir()}

    def move(self, name: str, target: str) -> None:
        """Move a file out of the folder, replacing what is there."""
        (self.path / name).replace(target)

    def remove(self) -> None:
        """Remove the folder and all in it, if it is there."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a URL. Raises DataError and UnreachableError."""

    url: str

    def open(self, name: str) -> BinaryIO:
        """Return a file's bytes to be read. Raise UserError if it is gone."""
        try:
            return io.BytesIO(read_url(f"{self.url}/{name}"))
        except NotFoundError:
            raise _gone(f"{self.url}/{name}") from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file: in a store, it is there once it is whole."""
        store, path = open_store(self.url)
        with explain_store_errors(self.url, "written"):
            store.pipe_file(f"{path}/{name}", content)

    @contextmanager
    def new_path(self, name: str) -> Iterator[Path]:
        """Yield a temporary path, whose file is uploaded after the block."""
        with tempfile.TemporaryDirectory() as folder:
            yield (local := Path(folder) / name)
            store, path = open_store(self.url)
            with explain_store_errors(self.url, "written"):
                store.put_file(str(local), f"{path}/{name}")

    def names(self) -> set[str]:
        """Return the names of all files."""
        store, path = open_store(self.url)
        with explain_store_errors(self.url):
            store.invalidate_cache(path)
            return {each.rpartition("/")[2] for each in store.ls(path, detail=False)}

    def move(self, name: str, target: str) -> None:
        """Move a file out of the folder: the store copies it, not this machine."""
        store, path = open_store(self.url)
        with explain_store_errors(target, "written"):
            store.mv(f"{path}/{name}", store._strip_protocol(target))

    def remove(self) -> None:
        """Remove the folder and all in it, if it is there."""
        store, path = open_store(self.url)
        with suppress(NotFoundError), explain_store_errors(self.url, "written"):
            store.invalidate_cache(path)
            store.rm(path, recursive=True)


def _gone(file: object) -> UserError:
    return UserError(f"{file} is not there for a worker: all must share this folder")
