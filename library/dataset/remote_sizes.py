"""Sizes and stamps of files at URLs, asked for by the folder where many lie in one.

Asking for one file takes a round trip over the network, listing a folder one for a thousand files.
But a folder may hold millions of which only some are wanted, or not be listable at all.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from library.dataset.stores import NothingThereError, naming_failure, open_store, stamp_of
from library.errors import DataError

# Files asked for one by one in a folder before it is listed.
_LISTED_FROM = 32
_AT_ONCE = 32
# Their folders are pages, if anything; those tell neither sizes nor stamps.
_NEVER_LISTED = ("http://", "https://")


class RemoteSizes:
    """Remembers the folders that it listed."""

    def __init__(self):
        self._wanted = Counter()
        # {folder: {name: (size, stamp)}}, or None for one that can't be listed.
        self._listed = {}

    def find(self, urls):
        """Give (size, stamp) of each of the URLs, or the reason, a str, why there is none.

        Raises UnreachableError.
        """
        self._wanted.update(map(_folder_of, urls))
        for folder in dict.fromkeys(map(_folder_of, urls)):
            if self._wanted[folder] >= _LISTED_FROM and folder not in self._listed:
                self._listed[folder] = _list(folder)
        alone = [url for url in urls if self._listed.get(_folder_of(url)) is None]
        with ThreadPoolExecutor(_AT_ONCE) as executor:
            asked = dict(zip(alone, executor.map(_ask, alone), strict=True))
        return [asked.get(url) or self._look_up(url) for url in urls]

    def _look_up(self, url):
        folder, _, name = url.rpartition("/")
        return self._listed[folder].get(name, "there is no such file")


def _folder_of(url):
    return url.rpartition("/")[0]


def _list(folder):
    if folder.startswith(_NEVER_LISTED):
        return None
    store, path = open_store(folder)
    try:
        with naming_failure(folder):
            found = store.ls(path, detail=True)
            # Else the store would remember all that it was told, many times what we do.
            store.invalidate_cache(path)
    except NothingThereError:
        return {}
    except DataError:
        return None  # Its files may be readable even so.
    return {
        facts["name"].rpartition("/")[2]: (facts.get("size") or 0, stamp_of(facts))
        for facts in found
        if facts["type"] != "directory"
    }


def _ask(url):
    store, path = open_store(url)
    try:
        with naming_failure(url):
            facts = store.info(path)
    except NothingThereError:
        return "there is no such file"
    except DataError as error:
        return str(error)
    if facts["type"] == "directory":
        return "it is a folder"
    return facts.get("size") or 0, stamp_of(facts)
