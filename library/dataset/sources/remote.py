"""Labeled files in folders at a URL, and what a store knows about single files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from library.dataset.locations import Location, NoLocation, RemoteLocation
from library.dataset.sources.base import (
    NO_CLASS,
    LabeledFile,
    check_classes,
    is_generated,
    is_ignored,
    label_of,
    make_labeled_file,
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

# Size, version and location of a remote file.
Facts = tuple[int, int, Location]


def find_in_url(url: str) -> Iterator[LabeledFile]:
    """Yield the labeled files of a remote folder tree."""
    url = url.rstrip("/")
    found, filled = set(), set()
    try:
        for name, entry in _walk(url):
            if entry["type"] == "directory":
                if "/" not in name:
                    found.add(name)
                continue
            label = label_of(name)
            if label is not None:
                filled.add(label)
                yield make_labeled_file(name, label, *_facts(f"{url}/{name}", entry))
    except NotFoundError:
        if filled:
            raise  # One of its folders vanished meanwhile.
    if not filled:
        raise DataError(f"there is nothing at {url}: put images at {url}/<class>/<image>")
    check_classes(found, filled, url)


def find_any_in_url(url: str) -> Iterator[LabeledFile]:
    """Yield each file below a URL, or the one at it, without labels and named by its URL."""
    url = url.rstrip("/")
    ((size, version, location),) = RemoteFacts().find([url])
    if isinstance(location, RemoteLocation):
        yield LabeledFile(url, NO_CLASS, size, version, location)
        return
    for path, entry in _walk(url):
        name = path.rpartition("/")[2]
        if entry["type"] != "directory" and not name.startswith(".") and not is_generated(name):
            yield LabeledFile(f"{url}/{path}", NO_CLASS, *_facts(f"{url}/{path}", entry))


def _walk(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path relative to the URL, entry) of each file and folder below a URL, sorted.

    Unlike fsspec's own walk, this raises an error for a folder that may not be listed.
    """
    pending = [""]
    while pending:
        prefix = pending.pop()
        folders = []
        for name, entry in list_folder(f"{url}/{prefix}".rstrip("/")):
            if entry["type"] == "directory":
                if is_ignored(name):
                    continue
                folders.append(f"{prefix}{name}/")
            yield prefix + name, entry
        pending += reversed(folders)


def _facts(url: str, entry: dict[str, Any]) -> Facts:
    return entry.get("size") or 0, version_of(entry), RemoteLocation(url)


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
            name: _facts(f"{folder}/{name}", entry)
            for name, entry in list_folder(folder)
            if entry["type"] != "directory"
        }
    except NotFoundError:
        return {}
    except DataError:
        return None  # Its files may be readable even so.


def _look_up(url: str) -> Facts:
    store, path = open_store(url)
    try:
        with explain_store_errors(url):
            entry = store.info(path)
    except NotFoundError:
        return 0, 0, NoLocation(_MISSING)
    except DataError as error:
        return 0, 0, NoLocation(str(error))
    if entry["type"] == "directory":
        return 0, 0, NoLocation("it is a folder")
    return _facts(url, entry)
