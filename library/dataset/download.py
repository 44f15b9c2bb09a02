"""Converted shards at a URL, fetched once into a folder of this machine, where all read them.

The folder is `<local_folder(url, "fetched")>/<version>`, the version a hash of the manifest: other
data at the same URL get another folder, so what a run reads is never changed under it. A shard has
its final name only once its bytes are those that the manifest lists, and the manifest comes last.
"""

import contextlib
import hashlib
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from library.dataset.manifest import (
    SUFFIX,
    manifest_path,
    parse_manifest,
    read_manifest,
    read_manifest_file,
    write_manifest,
)
from library.dataset.storage import (
    NothingThereError,
    local_folder,
    naming_failure,
    open_store,
    read_url,
)
from library.errors import DataError, StoppedError, UnreachableError, UserError, reason_of
from library.files import locked, new_file, remove_partials, sha256_of
from library.messages import counted

# Shards under way at once: one alone would mostly wait for the network.
_AT_ONCE = 8
_KEPT = "what was fetched is kept, and the same command goes on from there"


def find_split(url, name):
    """Return the Manifest of the split `name` at a URL, with the paths its shards will have here.

    Raises DataError where there is none, or it is damaged; UnreachableError.
    """
    where = f"{url}/{manifest_path('', name)}"
    try:
        content = read_url(where)
    except NothingThereError as error:
        raise DataError(
            f"{error}; this makes it from your images: python convert_dataset.py "
            f"--dataset_dir IMAGES --tfrecord_filename {name} --tfrecord_dir {url}"
        ) from None
    version = hashlib.sha256(content).hexdigest()[:16]
    folder = local_folder(url, "fetched") / version
    return replace(parse_manifest(content, where, folder, name), origin=url)


def fetch_manifest(url):
    """Fetch the split whose manifest is at a URL; give the path of the local copy's manifest."""
    folder, _, file = url.rpartition("/")
    manifest = find_split(folder, file.removesuffix(SUFFIX))
    fetch_shards([manifest])
    return manifest_path(manifest.folder, manifest.name)


def fetch_shards(manifests):
    """Bring the shards of Manifests that `find_split` gave to where their paths say.

    Raises DataError for a shard that is not what its manifest says; UserError where the network
    fails, or the disk is too small. What was fetched so far is kept.
    """
    missing = [each for each in manifests if not _is_here(each)]
    _check_space(missing)
    for manifest in missing:
        folder = manifest.folder
        try:
            lock = folder.with_name(f".{folder.name}.lock")
            with locked(lock, f"the copy of {manifest.origin}", wait=True):
                # Whoever had the lock may just have fetched it.
                if not _is_here(manifest):
                    _fetch(manifest)
        except UnreachableError as error:
            raise UnreachableError(f"{error}; {_KEPT}") from error
        except OSError as error:
            raise UserError(f"{folder} can't be written: {reason_of(error)}; {_KEPT}") from error
        except KeyboardInterrupt:
            raise StoppedError(f"interrupted; {_KEPT}", 130) from None


def _is_here(manifest):
    try:
        read_manifest(manifest.folder, manifest.name)
    except DataError:
        return False
    return True


def _check_space(manifests):
    """Raise UserError if the disk can't hold what is missing."""
    needed = sum(shard.bytes for each in manifests for shard in _missing(each))
    if not needed:
        return
    folder = manifests[0].folder
    there = next(each for each in folder.parents if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{there} has {_megabytes(free)} free, and the shards to fetch take "
            f"{_megabytes(needed)}: make room (earlier copies are in "
            f"{folder.parents[2] / 'image-classification-fetched-*'}), or let XDG_CACHE_HOME name "
            "a folder on a larger disk"
        )


def _missing(manifest):
    return [
        shard
        for shard, path in zip(manifest.shards, manifest.paths, strict=True)
        if not path.exists() or path.stat().st_size != shard.bytes
    ]


def _fetch(manifest):
    """Fetch what is missing of a split, several shards at once, and then write its manifest."""
    folder, url = manifest.folder, manifest.origin
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    earlier = _earlier_shards(manifest)
    missing = _missing(manifest)
    size = sum(shard.bytes for shard in missing)
    _say(
        f"fetching {url}: {len(missing):,} of {counted(len(manifest.shards), 'shard')}, "
        f"{_megabytes(size)}, "
        f"to {folder}"
    )
    if earlier:
        _say(
            f"{url} has changed since it was last fetched; earlier copies stay beside this one, "
            f"in {folder.parent}: remove them when no run reads them any more"
        )
    with (
        # No bar where stderr is no terminal.
        tqdm(total=size, unit="B", unit_scale=True, desc=manifest.name, disable=None) as bar,
        ThreadPoolExecutor(_AT_ONCE) as executor,
    ):
        progress = _Progress(bar)
        futures = [
            executor.submit(_fetch_shard, shard, manifest, earlier.get(shard.sha256), progress)
            for shard in manifest.shards
        ]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            # Those under way end at their next piece, the others never begin.
            progress.stopped.set()
            for future in futures:
                future.cancel()
            raise
    write_manifest(manifest)


def _earlier_shards(manifest):
    """Give {SHA-256: path} of the shards of the same split as it was fetched earlier."""
    shards = {}
    for path in manifest.folder.parent.glob(f"*/{manifest_path('', manifest.name)}"):
        if path.parent == manifest.folder:
            continue
        try:
            other = read_manifest_file(path)
        except DataError:
            continue
        shards |= {s.sha256: p for s, p in zip(other.shards, other.paths, strict=True)}
    return shards


def _fetch_shard(shard, manifest, earlier, progress):
    """Return a shard its final name, unless it has it: from an earlier copy, or from the URL."""
    path, url = manifest.folder / shard.file, f"{manifest.origin}/{shard.file}"
    if _is_right(path, shard):
        return
    if earlier and _is_right(earlier, shard):
        path.unlink(missing_ok=True)
        # Not all disks can let a file have two names.
        with contextlib.suppress(OSError):
            path.hardlink_to(earlier)
            return
    store, remote = open_store(url)
    with new_file(path) as file:
        partial_path = Path(file.name)
        too_long = _damaged(url, manifest, "it is longer")
        callback = progress.callback(partial_path, shard.bytes, too_long)
        with naming_failure(url):
            # To a name and not into the open file, as some stores want it; it is the same file.
            store.get_file(remote, str(partial_path), callback=callback)
        callback.absolute_update(shard.bytes)  # Some stores tell nothing on the way.
        if partial_path.stat().st_size != shard.bytes:
            raise DataError(_damaged(url, manifest, "it is shorter"))
        if sha256_of(partial_path) != shard.sha256:
            raise DataError(_damaged(url, manifest, "its SHA-256 is another"))


class _Progress:
    """The bar of all threads, and the word to stop."""

    def __init__(self, bar):
        self.stopped = threading.Event()
        self._bar = bar
        self._lock = threading.Lock()

    def callback(self, path, size, too_long):
        """Return what fsspec calls with each piece of shard; raises `too_long` beyond its size."""
        from fsspec.callbacks import Callback

        done = 0

        def watch(_, count):
            nonlocal done
            if self.stopped.is_set():
                raise InterruptedError("stopped")
            # A store that tried again has counted some bytes twice.
            if path.stat().st_size > size:
                raise DataError(too_long)
            count = min(count, size)
            with self._lock:
                self._bar.update(count - done)
            done = count

        return Callback(hooks={"watch": watch})


def _is_right(path, shard):
    try:
        return path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256
    except OSError:
        return False


def _damaged(url, manifest, what):
    return (
        f"{url} is not the shard that {manifest_path('', manifest.name)} lists: {what}; if it was "
        "just being replaced, start again, else convert again"
    )


def _megabytes(size):
    return f"{size / 1e6:,.1f} MB"


def _say(text):
    print(text, file=sys.stderr)
