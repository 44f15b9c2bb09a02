"""Converted splits at a URL: downloaded once to a folder of this machine, and uploaded.

The folder is `<local_folder(url, "fetched")>/<version>`, where the version is a hash of the
manifest: other data at the same URL get another folder, so what a run reads never changes. A shard
gets its final name once its bytes are those that the manifest lists, and the manifest is written
last.
"""

import contextlib
import glob
import hashlib
import logging
import posixpath
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from library.dataset.manifest import (
    SUFFIX,
    Manifest,
    Shard,
    find_manifest,
    manifest_path,
    parse_manifest,
    write_manifest,
)
from library.dataset.shards import rejected_path
from library.dataset.sources.base import FIRST_FOLD, TRAINING
from library.dataset.storage import (
    NotFoundError,
    explain_store_errors,
    local_folder,
    open_store,
    read_url,
    version_of,
)
from library.errors import DataError, UserError
from library.files import locked, new_file, remove_partials, resumable, sha256_of, sync_tree
from library.logging import progress_bar
from library.messages import counted

# Concurrent downloads: a single one would mostly wait for the network.
_THREADS = 8

logger = logging.getLogger(__name__)


def find_split(url: str, name: str) -> Manifest:
    """Return the manifest of the split `name` at a URL, with the local paths of its shards.

    Raises:
        DataError: There is no manifest, or it is damaged.
        UnreachableError: The store does not answer.
    """
    manifest_url = f"{url}/{manifest_path('', name)}"
    try:
        content = read_url(manifest_url)
    except NotFoundError as error:
        options = f"--dataset_dir IMAGES --tfrecord_filename {name} --tfrecord_dir {url}"
        raise DataError(f"{error}; to make it: python convert_dataset.py {options}") from None
    version = hashlib.sha256(content).hexdigest()[:16]
    folder = local_folder(url, "fetched") / version
    return replace(parse_manifest(content, manifest_url, folder, name), origin=url)


def find_remote_manifest(url: str, name: str) -> Manifest | None:
    """Return the manifest of a split at a URL, or None if it is missing or damaged."""
    try:
        return find_split(url.rstrip("/"), name)
    except DataError:
        return None


def fetch_manifest(url: str) -> Path:
    """Download the split whose manifest is at a URL, and return its local manifest's path."""
    folder, _, file = url.rpartition("/")
    manifest = find_split(folder, file.removesuffix(SUFFIX))
    fetch_shards([manifest])
    return manifest_path(manifest.folder, manifest.name)


def fetch_files(pattern: str) -> list[Path]:
    """Download the files at a URL or a pattern of URLs, once, and return their local paths, sorted.

    Raises:
        DataError: There are none.
        UserError: The network fails, or the disk is too small. Finished downloads are kept.
    """
    store, path = open_store(pattern)
    with explain_store_errors(pattern):
        is_pattern = glob.has_magic(path)
        found = store.glob(path, detail=True) if is_pattern else {path: store.info(path)}
    entries = {name: each for name, each in found.items() if each.get("type") != "directory"}
    if not entries or any(each.get("size") is None for each in entries.values()):
        raise DataError(f"there are no files {pattern}, or their sizes are unknown")
    fetched: list[Path] = []
    for folder in sorted({posixpath.dirname(name) for name in entries}):
        own = {n: each for n, each in sorted(entries.items()) if posixpath.dirname(n) == folder}
        # The hashes are not known; a file of another version has another folder.
        shards = tuple(Shard(posixpath.basename(n), 0, each["size"], "") for n, each in own.items())
        facts = [(n, each["size"], version_of(each)) for n, each in own.items()]
        version = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        url = store.unstrip_protocol(folder)
        local = local_folder(url, "fetched") / version
        manifest = Manifest(local, "", (), (), shards, origin=url)
        with resumable(local, "downloaded files"), _download_lock(manifest):
            if _missing_shards(manifest):
                _check_space([manifest])
                _download(manifest)
        fetched += manifest.paths
    return fetched


def fetch_shards(manifests: Sequence[Manifest]) -> None:
    """Download the shards of manifests from `find_split` to their local paths.

    Raises:
        DataError: A shard is not the one that its manifest lists.
        UserError: The network fails, or the disk is too small. Finished downloads are kept.
    """
    missing = [each for each in manifests if not find_manifest(each.folder, each.name)]
    _check_space(missing)
    for manifest in missing:
        with resumable(manifest.folder, "downloaded shards"), _download_lock(manifest):
            # The previous holder of the lock may have finished the download.
            if not find_manifest(manifest.folder, manifest.name):
                _download(manifest)
                sync_tree(manifest.folder)
                write_manifest(manifest)


def _download_lock(manifest: Manifest) -> contextlib.AbstractContextManager[None]:
    lock = manifest.folder.with_name(f".{manifest.folder.name}.lock")
    return locked(lock, f"the download of {manifest.origin}", wait=True)


def fetch_training_manifest(url: str, folder: Path) -> None:
    """Copy the manifest of the training split to where the local twin of a remote split expects it.

    And that of the first fold.

    Args:
        url: The remote split's folder; the training split is in it, or in the folder beside it.
        folder: The local folder for it.
    """
    url = url.rstrip("/")
    for name in (TRAINING, FIRST_FOLD):
        sibling = f"{url.rpartition('/')[0]}/{name}"
        for remote, local in ((url, folder), (sibling, folder.parent / name)):
            path = manifest_path(local, name)
            # Read it instead of asking whether it exists: stores also answer no if they can't be
            # reached, and then the classes would get other ids.
            with contextlib.suppress(NotFoundError):
                content = read_url(f"{remote}/{path.name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def upload(manifest: Manifest, url: str, put_shards: Callable[[], object] | None = None) -> None:
    """Copy a split to a URL: the shards first, the manifest, which makes them valid, last.

    Args:
        manifest: The split's.
        url: Where it goes.
        put_shards: Puts the shards there; None: they are local files.
    """
    store, path = open_store(url)
    rejected = rejected_path(manifest.folder, manifest.name)
    last = manifest_path(manifest.folder, manifest.name)
    with explain_store_errors(url, "written"):
        store.makedirs(path, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            store.rm_file(f"{path}/{last.name}")
        if put_shards:
            put_shards()
        shards = () if put_shards else manifest.paths
        for file in (*shards, *([rejected] if rejected.exists() else []), last):
            store.put_file(str(file), f"{path}/{file.name}")


def _check_space(manifests: Sequence[Manifest]) -> None:
    """Raise UserError if the disk can't hold the missing shards."""
    needed = sum(shard.bytes for each in manifests for shard in _missing_shards(each))
    if not needed:
        return
    folder = manifests[0].folder
    disk = next(each for each in folder.parents if each.exists())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise UserError(
            f"{disk} has {_megabytes(free)} free, and the shards take {_megabytes(needed)}: remove "
            "earlier downloads there, or set XDG_CACHE_HOME to a folder on a larger disk"
        )


def _missing_shards(manifest: Manifest) -> list[Shard]:
    return [
        shard
        for shard, path in zip(manifest.shards, manifest.paths, strict=True)
        if not path.exists() or path.stat().st_size != shard.bytes
    ]


def _download(manifest: Manifest) -> None:
    """Download the missing shards of a split, several at once."""
    folder, url = manifest.folder, manifest.origin
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    missing = _missing_shards(manifest)
    size = sum(shard.bytes for shard in missing)
    shards = f"{len(missing):,} of {counted(len(manifest.shards), 'shard')}"
    logger.info("downloading %s: %s, %s, to %s", url, shards, _megabytes(size), folder)
    with (
        progress_bar(size, manifest.name, unit="B", unit_scale=True) as bar,
        ThreadPoolExecutor(_THREADS) as executor,
    ):
        progress = DownloadProgress(bar)
        listed_in = manifest_path("", manifest.name).name
        futures = [
            executor.submit(
                fetch_shard, shard, f"{manifest.origin}/{shard.file}", path, progress, listed_in
            )
            for shard, path in zip(manifest.shards, manifest.paths, strict=True)
        ]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            # Running downloads end at their next piece, the others never begin.
            progress.stopped.set()
            for future in futures:
                future.cancel()
            raise


def fetch_shard(
    shard: Shard, url: str, path: Path, progress: "DownloadProgress", listed_in: str
) -> None:
    """Download a shard unless it is there, intact.

    Args:
        shard: Its size and hash.
        url: Where it is.
        path: Where it will be, whole.
        progress: What to report to, and what may stop the download.
        listed_in: Name of the manifest that lists the shard.

    Raises:
        DataError: It is not the shard that the manifest lists, or there is none.
        UnreachableError: The store does not answer.
        OSError: It can't be written.
    """
    if is_intact(path, shard):
        return
    damage = f"{url} is not what {listed_in} lists: {{}}; try again, or convert again"
    store, remote = open_store(url)
    # Who fetches it again checks its hash; a download of all shards waits for the disk once.
    with new_file(path, is_durable=False) as file:
        partial_path = Path(file.name)
        too_long = DataError(damage.format("too long"))
        callback = progress.callback(partial_path, shard.bytes, too_long)
        with explain_store_errors(url):
            # Some stores want a name, not the open file; it is the same file.
            store.get_file(remote, str(partial_path), callback=callback)
        callback.absolute_update(shard.bytes)  # Some stores report nothing meanwhile.
        if partial_path.stat().st_size != shard.bytes:
            raise DataError(damage.format("too short"))
        if shard.sha256 and sha256_of(partial_path) != shard.sha256:
            raise DataError(damage.format("another SHA-256"))


class DownloadProgress:
    """The progress bar of all downloads, and the signal that stops them."""

    def __init__(self, bar: Any) -> None:
        """Take what has a method `update` for a number of bytes."""
        self.stopped = threading.Event()
        self._bar = bar
        self._lock = threading.Lock()

    def callback(self, path: Path, size: int, too_long: DataError) -> Any:
        """Return the fsspec callback of a shard; it raises `too_long` beyond the shard's size."""
        from fsspec.callbacks import Callback

        done = 0

        def update(_: int, count: int) -> None:
            nonlocal done
            if self.stopped.is_set():
                raise InterruptedError("stopped")
            # A store that retries counts some bytes twice.
            if path.stat().st_size > size:
                raise too_long
            count = min(count, size)
            with self._lock:
                self._bar.update(count - done)
            done = count

        return Callback(hooks={"update": update})


def is_intact(path: Path, shard: Shard) -> bool:
    """Return whether a file is the shard that a manifest lists."""
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return False
    return not shard.sha256 or sha256_of(path) == shard.sha256


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
