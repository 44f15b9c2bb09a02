"""Images and shards at gs://, s3:// and the like, through fsspec: an extra, `.[remote]`."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from library.dataset.classes import TRAINING
from library.dataset.manifest import manifest_path
from library.dataset.publishing import rejected_path
from library.dataset.sources import check_classes, label_of, labelled
from library.errors import DataError


def is_remote(place):
    """Tell whether a source or folder is a URL."""
    return "://" in str(place)


def find_in_url(url):
    """Yield the LabelledFiles of a remote folder tree."""
    file_system, root = _open(url)
    root = root.rstrip("/")
    found, filled = set(), set()
    try:
        for folder, _, files in file_system.walk(root, detail=True):
            prefix = f"{folder.rstrip('/')}/"[len(root) + 1 :]
            if prefix.count("/") == 1 and label_of(f"{prefix}x") is not None:
                found.add(prefix[:-1])
            for name, facts in files.items():
                label = label_of(prefix + name) if name else None
                if label is not None:
                    filled.add(label)
                    place = ("remote", f"{url.rstrip('/')}/{prefix}{name}")
                    yield labelled(prefix + name, label, facts["size"] or 0, _stamp(facts), place)
    except OSError as error:
        raise DataError(f"{url} can't be read: {error}") from None
    if not filled:
        raise DataError(f"there is nothing at {url}: put images at {url}/<class>/<image>")
    check_classes(found, filled, url)


def read_url(url):
    """Give the bytes at a URL. Raises OSError."""
    file_system, path = _open(url)
    return file_system.cat_file(path)


def local_folder(url):
    """Give the local folder in which what goes to `url` is made first; always the same one."""
    name = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / f"image-classification-{name}" / url.rstrip("/").rpartition("/")[2]


def fetch_training_manifest(url, folder):
    """Copy the training split's manifest beside the remote split to where `folder` expects it."""
    file_system, path = _open(url)
    for theirs, ours in (
        (path.rstrip("/"), folder),
        (f"{path.rstrip('/').rpartition('/')[0]}/{TRAINING}", folder.parent / TRAINING),
    ):
        remote = f"{theirs}/{manifest_path(folder, TRAINING).name}"
        if file_system.exists(remote):
            ours.mkdir(parents=True, exist_ok=True)
            manifest_path(ours, TRAINING).write_bytes(file_system.cat_file(remote))


def upload(manifest, url):
    """Copy a split to `url`: its shards first, and the manifest, which makes them count, last."""
    file_system, path = _open(url)
    rejected = rejected_path(manifest.folder, manifest.name)
    last = manifest_path(manifest.folder, manifest.name)
    try:
        file_system.makedirs(path, exist_ok=True)
        if file_system.exists(f"{path}/{last.name}"):
            file_system.rm_file(f"{path}/{last.name}")
        for file in (*manifest.paths, *([rejected] if rejected.exists() else []), last):
            file_system.put_file(str(file), f"{path}/{file.name}")
    except OSError as error:
        raise DataError(f"{url} can't be written: {error}") from None


def _stamp(facts):
    # Each store has its own word for what changes with the content.
    marks = (facts.get(each) for each in ("etag", "ETag", "md5Hash", "mtime", "LastModified"))
    mark = next((each for each in marks if each is not None), "")
    return int.from_bytes(hashlib.blake2b(str(mark).encode(), digest_size=8).digest(), "big")


def _open(url):
    try:
        return _file_system(url.partition("://")[0], url)
    except ImportError as error:
        raise DataError(f"{url} needs what pip install '.[remote]' brings: {error}") from None
    except ValueError as error:
        raise DataError(f"{url}: {error}") from None


def _file_system(protocol, url):
    file_system = _of_protocol(protocol)
    return file_system, file_system._strip_protocol(url)


@lru_cache(maxsize=8)
def _of_protocol(protocol):
    import fsspec

    return fsspec.filesystem(protocol)
