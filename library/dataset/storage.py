"""Files at gs://, s3://, https:// and the like, through fsspec: an extra, `.[remote]`."""

import contextlib
import errno
import hashlib
import os
import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from library.errors import DataError, UnreachableError, UserError

# Each store has its own word for what changes with the content, and its own class of errors.
_MARKS = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "Last-Modified", "created")
_FORBIDDEN = re.compile(
    r"\b40[13]\b|forbidden|unauthori[sz]ed|access ?denied|credential|permission", re.IGNORECASE
)
# Errors of this machine's disk, which are not the store's.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_REASON = 200
# What says that nothing is there; below a file there is nothing to be read.
_MISSING = {"read": (FileNotFoundError, NotADirectoryError), "written": FileNotFoundError}


class NothingThereError(DataError):
    """A URL leads to nothing."""


def is_remote(place):
    """Return whether a source or folder is a URL."""
    return "://" in str(place)


def open_store(url):
    """Return the file system of fsspec that a URL is in, and its path there. Raises UserError."""
    with naming_failure(url):
        try:
            store = _store_of(url.partition("://")[0])
        except ImportError as error:
            raise DataError(
                f"{url} lacks its package: {error}; pip install '.[remote]' brings those of "
                "gs://, s3:// and https://"
            ) from None
        except ValueError as error:
            raise DataError(f"{url}: {error}") from None
    return store, store._strip_protocol(url)


@contextlib.contextmanager
def naming_failure(url, done="read"):
    """Turn whatever a store raises inside the block into one line about the URL.

    Raises NothingThereError; DataError where it must not be read (or what is `done`: "written");
    UnreachableError for all else. Errors of this machine's disk are left alone.
    """
    try:
        yield
    except UserError:
        raise
    except _MISSING[done] as error:
        raise NothingThereError(f"there is no {url}, or no bucket of that name") from error
    except Exception as error:
        if getattr(error, "errno", None) in _DISK:
            raise
        kind = type(error).__name__
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or kind
        if isinstance(error, PermissionError) or _FORBIDDEN.search(f"{kind} {reason}"):
            raise DataError(
                f"{url} must not be {done} by you, or you are not logged in: {reason}"
            ) from error
        raise UnreachableError(f"{url} can't be {done}: {reason}") from error


def read_url(url):
    """Return the bytes at a URL. Raises DataError and UnreachableError."""
    store, path = open_store(url)
    with naming_failure(url):
        return store.cat_file(path)


def stamp_of(facts):
    """Return a number that changes with a file, from what its store tells about it."""
    mark = next((facts[each] for each in _MARKS if facts.get(each) is not None), "")
    if isinstance(mark, datetime):
        # The same moment may come as a number elsewhere.
        mark = mark.timestamp()
    return int.from_bytes(hashlib.blake2b(str(mark).encode(), digest_size=8).digest(), "big")


def local_folder(url, purpose="written"):
    """Return the folder of this machine for what is at `url`; always the same one.

    In it is made what goes to the URL (`written`), or kept what comes from there (`fetched`).
    """
    url = url.rstrip("/")
    name = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / f"image-classification-{purpose}-{name}" / url.rpartition("/")[2]


def _store_of(protocol):
    import fsspec

    if fsspec.get_filesystem_class(protocol).async_impl:
        return _shared_store(protocol)
    # One for each thread, which it remembers: not all can be used by several.
    return fsspec.filesystem(protocol)


@lru_cache(maxsize=8)
def _shared_store(protocol):
    import fsspec

    return fsspec.filesystem(protocol)
