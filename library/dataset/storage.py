"""Files at gs://, s3://, https:// and so on, through fsspec: the extra `.[remote]`."""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from library.errors import DataError, UnreachableError, UserError

# What changes with a file's content has another name, and a failure another class, in each store.
_VERSION_KEYS = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "Last-Modified", "created")
_FORBIDDEN = re.compile(
    r"\b40[13]\b|forbidden|unauthori[sz]ed|access ?denied|credential|permission", re.IGNORECASE
)
_PATH = re.compile(r"[^\s\"',]*/[^\s\"',]*")
# Errors of this machine's disk, which are not the store's.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAX_REASON = 200


class NotFoundError(DataError):
    """There is nothing at a URL."""


def is_remote(path: str | Path) -> bool:
    """Return whether a source or folder is a URL."""
    return "://" in str(path)


def open_store(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it. Raise UserError."""
    with explain_store_errors(url):
        try:
            store = _open_store(url)
        except ImportError as error:
            raise DataError(f"{url} needs a package: {error}; pip install '.[remote]'") from None
        except ValueError as error:
            raise DataError(f"{url}: {error}") from None
    return store, store._strip_protocol(url)


def _open_store(url: str) -> Any:
    import fsspec.core

    protocol = url.partition("://")[0]
    if fsspec.get_filesystem_class(protocol).async_impl:
        return _open_shared_store(protocol)
    # fsspec remembers one per thread: not all stores are thread-safe. Some, as ftp://, need the
    # host from the URL.
    return fsspec.core.url_to_fs(url)[0]


@lru_cache(maxsize=8)
def _open_shared_store(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol)


@contextlib.contextmanager
def explain_store_errors(url: str, action: Literal["read", "written"] = "read") -> Iterator[None]:
    """Turn whatever a store raises within the block into one line about the URL.

    Raises:
        NotFoundError: There is nothing at the URL.
        DataError: It may not be read (or written).
        UnreachableError: Anything else, except errors of this machine's disk.
    """
    # Below a file there is nothing to read.
    missing = (FileNotFoundError, *([NotADirectoryError] if action == "read" else []))
    try:
        yield
    except UserError:
        raise
    except missing as error:
        raise NotFoundError(f"there is no {url}, or no bucket of that name") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        kind = type(error).__name__
        reason = " ".join(str(error).split())[:_MAX_REASON] or kind
        # A path may hold any word or number. An error about a local file says which it is.
        words = "" if getattr(error, "filename", None) else _PATH.sub(" ", f"{kind} {reason}")
        if isinstance(error, PermissionError) or _FORBIDDEN.search(words):
            raise DataError(
                f"{url} may not be {action} by you, or you are not logged in: {reason}"
            ) from error
        raise UnreachableError(f"{url} can't be {action}: {reason}") from error


def read_url(url: str) -> bytes:
    """Return the bytes at a URL. Raise DataError, UnreachableError."""
    store, path = open_store(url)
    with explain_store_errors(url):
        return store.cat_file(path)


def list_folder(url: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (name, the store's entry) of each file and folder in a folder, sorted by name."""
    store, path = open_store(url)
    with explain_store_errors(url):
        entries = store.ls(path, detail=True)
        # Otherwise the store would remember every entry.
        store.invalidate_cache(path)
    paths = {each["name"].rstrip("/"): each for each in entries}
    # Some stores hold the folder itself as a file without a name.
    paths.pop(path.rstrip("/"), None)
    return sorted((name.rpartition("/")[2], entry) for name, entry in paths.items())


def version_of(entry: dict[str, Any]) -> int:
    """Return a number that changes with a file, from the store's entry for it."""
    mark = next((entry[key] for key in _VERSION_KEYS if entry.get(key) is not None), "")
    if isinstance(mark, datetime):
        # Another call to the store may return the same time as a number.
        mark = mark.timestamp()
    return int.from_bytes(hashlib.blake2b(str(mark).encode(), digest_size=8).digest(), "big")


def local_folder(url: str, purpose: Literal["written", "fetched", "indexed"] = "written") -> Path:
    """Return the local folder for a URL, always the same one.

    Args:
        url: The remote folder.
        purpose: "written" for what is made locally and then uploaded, "fetched" for downloads,
            "indexed" for the index of a local folder that can't be written.
    """
    url = url.rstrip("/")
    name = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    return cache_folder() / f"image-classification-{purpose}-{name}" / url.rpartition("/")[2]


def cache_folder() -> Path:
    """Return the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def local_path(path: str | Path) -> Path:
    """Return a path, or the folder where what is written to a URL is made."""
    return local_folder(str(path)) if is_remote(path) else Path(path)
