"""Labeled files in folders at a URL, and what a store knows about single files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from library.dataset.locations import Facts, NoLocation, RemoteLocation
from library.dataset.sources.base import (
    Entry,
    LabeledFile,
    is_ignored,
    label_files,
)
from library.dataset.storage import (
    NotFoundError,
    explain_store_errors,
    list_folder,
    open_store,
    version_of,
)
from library.errors import DataError

# Files of a folder that are looked up one by one before the folder is listed.
_MIN_LISTED = 32
_THREADS = 32
# Their folders are web pages, if anything, which have neither sizes nor versions.
_NEVER_LISTED = ("http://", "https://")
_MISSING = "there is no such file"


def find_in_url(url: str) -> Iterator[LabeledFile]:
    """Yield the labeled files of a remote folder tree."""
    is_empty = True
    try:
        for file in label_files(walk_url(url.rstrip("/")), url):
            is_empty = False
            yield file
    except NotFoundError:
        if not is_empty:
            raise  # One of its folders vanished meanwhile.
    if is_empty:
        raise DataError(f"there is nothing at {url}: put images at {url}/<class>/<image>")


def walk_url(url: str) -> Iterator[Entry]:
    """Yield the files and folders below a URL, sorted, named relative to it.

    Unlike fsspec's own walk, this raises an error for a folder that may not be listed.
    """
    pending = [""]
    while pending:
        prefix = pending.pop()
        folders = []
        for name, info in list_folder(f"{url}/{prefix}".rstrip("/")):
            path = prefix + name
            if info["type"] != "directory":
                yield Entry(path, False, *_facts(f"{url}/{path}", info))
            elif not is_ignored(name):
                folders.append(f"{path}/")
                yield Entry(path, True)
        pending += reversed(folders)


def _facts(url: str, info: dict[str, Any]) -> Facts:
    return info.get("size") or 0, version_of(info), RemoteLocation(url)


class RemoteFacts:
    """Looks up sizes and versions of remote files, by listing a folder if many are in it."""

    def __init__(self) -> None:
        self._wanted: Counter[str] = Counter()
        # {folder: {name: facts}}, with None for a folder that can't be listed.
        self._listed: dict[str, dict[str, Facts] | None] = {}

    def find(self, urls: Sequence[str]) -> list[Facts]:
        """Return (size, version, location) for each URL; NoLocation has the reason if none.

        Raises UnreachableError if the store does not answer.
        """
        self._wanted.update(map(_folder_of, urls))
        for folder in dict.fromkeys(map(_folder_of, urls)):
            if self._wanted[folder] >= _MIN_LISTED and folder not in self._listed:
                self._listed[folder] = _list(folder)
        single = [url for url in urls if self._listed.get(_folder_of(url)) is None]
        with ThreadPoolExecutor(_THREADS) as executor:
            facts = dict(zip(single, executor.map(_look_up, single), strict=True))
        for url in urls:
            if (listed := self._listed.get(_folder_of(url))) is not None:
                facts[url] = listed.get(url.rpartition("/")[2], (0, 0, NoLocation(_MISSING)))
        return [facts[url] for url in urls]


def _folder_of(url: str) -> str:
    return url.rpartition("/")[0]


def _list(folder: str) -> dict[str, Facts] | None:
    if folder.startswith(_NEVER_LISTED):
        return None
    try:
        return {
            name: _facts(f"{folder}/{name}", info)
            for name, info in list_folder(folder)
            if info["type"] != "directory"
        }
    except NotFoundError:
        return {}
    except DataError:
        return None  # Its files may be readable even so.


def _look_up(url: str) -> Facts:
    store, path = open_store(url)
    try:
        with explain_store_errors(url):
            info = store.info(path)
    except NotFoundError:
        return 0, 0, NoLocation(_MISSING)
    except DataError as error:
        return 0, 0, NoLocation(str(error))
    if info["type"] == "directory":
        return 0, 0, NoLocation("it is a folder")
    return _facts(url, info)
