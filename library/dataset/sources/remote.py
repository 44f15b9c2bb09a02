"""Images in folders at a URL, and shards that go there."""

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from library.dataset.manifest import manifest_path
from library.dataset.shards import rejected_path
from library.dataset.sources.base import (
    NO_CLASS,
    LabeledFile,
    check_classes,
    is_ignored,
    is_ours,
    label_of,
    labeled_file,
)
from library.dataset.splits import TRAINING
from library.dataset.storage import (
    NothingThereError,
    naming_failure,
    open_store,
    read_url,
    stamp_of,
)
from library.errors import DataError


def find_in_url(url):
    """Yield the LabeledFiles of a remote folder tree."""
    url = url.rstrip("/")
    found, filled = set(), set()
    try:
        for prefix, name, facts in _walk(url):
            if facts["type"] == "directory":
                if not prefix:
                    found.add(name)
                continue
            label = label_of(prefix + name)
            if label is not None:
                filled.add(label)
                place = ("remote", f"{url}/{prefix}{name}")
                size, stamp = facts.get("size") or 0, stamp_of(facts)
                yield labeled_file(prefix + name, label, size, stamp, place)
    except NothingThereError:
        if filled:
            raise  # One of its folders vanished meanwhile.
    if not filled:
        raise DataError(f"there is nothing at {url}: put images at {url}/<class>/<image>")
    check_classes(found, filled, url)


def find_any_in_url(url):
    """Yield a LabeledFile of each file below a URL, or of the one there, sorted; without labels.

    Its name is its own URL.
    """
    url = url.rstrip("/")
    (found,) = RemoteSizes().find([url])
    if not isinstance(found, str):
        yield LabeledFile(url, NO_CLASS, *found, ("remote", url))
        return
    for prefix, name, facts in _walk(url):
        if facts["type"] != "directory" and not name.startswith(".") and not is_ours(name):
            place = f"{url}/{prefix}{name}"
            size, stamp = facts.get("size") or 0, stamp_of(facts)
            yield LabeledFile(place, NO_CLASS, size, stamp, ("remote", place))


def _walk(url):
    """Yield (path to its folder, name, facts) of each file and folder below a URL, sorted.

    Stores have such a function too; it leaves out, without a word, what must not be listed.
    """
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        store, folder = open_store(url + f"/{prefix}".rstrip("/"))
        with naming_failure(f"{url}/{prefix}"):
            entries = store.ls(folder, detail=True)
            # Else it would remember all that it was told.
            store.invalidate_cache(folder)
        folders = []
        for facts in sorted(entries, key=lambda each: each["name"]):
            path = facts["name"].rstrip("/")
            name = path.rpartition("/")[2]
            if path == folder.rstrip("/"):
                continue  # The folder itself, which some stores keep as a file without a name.
            if facts["type"] == "directory":
                if is_ignored(name):
                    continue
                folders.append(f"{prefix}{name}/")
            yield prefix, name, facts
        waiting += reversed(folders)


def fetch_training_manifest(url, folder):
    """Copy the training split's manifest beside the remote split to where `folder` expects it."""
    url = url.rstrip("/")
    beside = url.rpartition("/")[0] + f"/{TRAINING}"
    for theirs, ours in ((url, folder), (beside, folder.parent / TRAINING)):
        path = manifest_path(ours, TRAINING)
        # Not to be asked whether it is there: stores say no, too, if they can't be reached, and
        # the classes would get other numbers.
        with contextlib.suppress(NothingThereError):
            content = read_url(f"{theirs}/{path.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def upload(manifest, url):
    """Copy a split to `url`: its shards first, and the manifest, which makes them count, last."""
    store, path = open_store(url)
    rejected = rejected_path(manifest.folder, manifest.name)
    last = manifest_path(manifest.folder, manifest.name)
    with naming_failure(url, "written"):
        store.makedirs(path, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            store.rm_file(f"{path}/{last.name}")
        for file in (*manifest.paths, *([rejected] if rejected.exists() else []), last):
            store.put_file(str(file), f"{path}/{file.name}")


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
