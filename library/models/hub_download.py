"""Pretrained modules: a handle (URL, gs://, folder or archive) becomes a local folder.

`tensorflow_hub.resolve` downloads, unpacks and caches in `TFHUB_CACHE_DIR`. Ours are the pinned
hash, time-outs, archives on disk, and local copies of folders on gs://, because a snapshot holds
the module's files.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import tarfile
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from library.dataset.sources.archive import find_members
from library.errors import UserError, reason_of
from library.files import new_folder, sha256_of

logger = logging.getLogger(__name__)

GRAPH = "saved_model.pb"
# How long a server may stay silent.
TIMEOUT_SECONDS = 20
# Weights hardly compress: an archive that grows a hundredfold is an attack on the disk.
MAX_EXPANSION = 100


def resolve_module(handle: str | Path, sha256: str | None = None) -> Path:
    """Return the folder that holds a module's SavedModel, after downloading it if necessary.

    Args:
        handle: A URL (such as one of tfhub.dev or Kaggle), a folder or archive, also on gs://.
        sha256: What `hash_module` must return; None for anything.

    Raises:
        UserError: The module cannot be had, is incomplete, or has another hash.
    """
    handle = str(handle)
    try:
        folder = _resolve(handle)
        problem, advice = find_missing(folder), deletion_hint(folder)
    except Exception as error:
        # Servers, archives, disks and TensorFlow raise errors of many kinds.
        problem, advice = _reason(error), ""
    if problem:
        advice = advice or (
            "; --hub_handle must be a URL, a folder, an archive or a gs:// path of a SavedModel"
        )
        raise UserError(f"cannot load the module {handle}: {problem}{advice}")
    if sha256 and (found := hash_module(folder)) != sha256.lower():
        raise UserError(
            f"the module {handle} has the hash {found}, but hub_sha256 is {sha256}"
            f"{deletion_hint(folder)}"
        )
    return folder


def hash_module(folder: str | Path) -> str:
    """Return the SHA-256 of the names and contents of a module's files, in hexadecimal."""
    folder = Path(folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    content = json.dumps([[name, sha256_of(folder / name)] for name in names])
    return hashlib.sha256(content.encode()).hexdigest()


def find_missing(folder: Path) -> str | None:
    """Return what a SavedModel's folder lacks, in a few words, or None if it is complete."""
    if not folder.is_dir():
        return "no such file or folder"
    if not (folder / GRAPH).is_file():
        return f"there is no {GRAPH} in {folder}"
    index = folder / "variables" / "variables.index"
    shards = list(index.parent.glob("variables.data-*-of-*"))
    if shards and not index.is_file():
        return f"{index} is missing"
    # Each shard's name ends with their number.
    if index.is_file() and (not shards or len(shards) != int(shards[0].name[-5:])):
        return f"{index.parent} is incomplete"
    return None


def deletion_hint(folder: Path) -> str:
    """Return `; delete …` for a folder in the cache, which is downloaded again then, or ""."""
    folder = Path(folder)
    for each in (folder, *folder.parents):
        if each.parent == _cache_folder():
            return f"; delete {each} to download it again"
    return ""


@contextlib.contextmanager
def socket_timeout(seconds: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Limit how long a server may stay silent, for libraries that would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cache_folder() -> Path:
    """Return the folder of downloaded modules: that of tensorflow_hub."""
    default = Path(tempfile.gettempdir(), "tfhub_modules")
    return Path(os.environ.get("TFHUB_CACHE_DIR") or default).expanduser()


def _resolve(handle: str) -> Path:
    if "://" not in handle:
        path = Path(handle).expanduser()
        # By content, so that an archive that was replaced is unpacked again.
        return _cached(sha256_of(path), lambda to: _unpack(path, to)) if path.is_file() else path
    with warnings.catch_warnings(), socket_timeout():
        # It warns about pkg_resources, which it imports.
        warnings.simplefilter("ignore")
        import tensorflow_hub

        # SHA-1 is how tensorflow_hub names its folders; it protects nothing here.
        name = hashlib.sha1(handle.encode(), usedforsecurity=False).hexdigest()
        if (lock := _cache_folder() / f"{name}.lock").exists():
            logger.warning("waiting for another download of %s; if there is none, delete it", lock)
        if handle.startswith("gs://"):
            # An unreachable server is an error here; TensorFlow would try for minutes.
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen("https://storage.googleapis.com").close()
        path = tensorflow_hub.resolve(handle)
    if "://" in path:
        return _cached(name, lambda to: _copy_tree(path, to))
    return _inner_folder(Path(path))


def _copy_tree(source: str, target: Path) -> None:
    import tensorflow as tf

    for folder, _, names in tf.io.gfile.walk(source):
        copy = target / folder.removeprefix(source).strip("/")
        copy.mkdir(parents=True, exist_ok=True)
        for name in names:
            tf.io.gfile.copy(f"{folder.rstrip('/')}/{name}", str(copy / name))


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder in the cache; `fill` writes its files if it is absent or incomplete."""
    folder = _cache_folder() / name
    if find_missing(_inner_folder(folder)):
        with new_folder(folder) as partial:
            fill(partial)
            if missing := find_missing(_inner_folder(partial)):
                raise OSError(missing.replace(str(partial), "it"))
    return _inner_folder(folder)


def _inner_folder(folder: Path) -> Path:
    """Return the folder with the graph, which an archive may hold below folders of its own."""
    graphs = list(folder.rglob(GRAPH))
    return graphs[0].parent if len(graphs) == 1 else folder


def _unpack(archive: Path, folder: Path) -> None:
    size = sum(each.size for each in find_members(archive))
    if size > MAX_EXPANSION * archive.stat().st_size:
        raise OSError(f"refused, because the archive unpacks to {size:,} bytes")
    if not tarfile.is_tarfile(archive):
        shutil.unpack_archive(archive, folder, "zip")
        return
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
        # The tar ends before the file does, and only there gzip compares the checksum.
        while tar.fileobj and tar.fileobj.read(1 << 20):
            pass


def _reason(error: Exception) -> str:
    if type(error) is urllib.error.URLError:
        return f"the server cannot be reached ({error.reason})"
    name = error.filename if isinstance(error, OSError) else None
    return reason_of(error).rstrip(".") + (f": {name}" if name else "")
