"""What a URL of a run, a snapshot, a checkpoint or a file of weights names, downloaded once."""

import logging
from pathlib import Path

from library.dataset.remote_splits import fetch_files
from library.dataset.storage import local_folder, open_store
from library.errors import CheckpointError, DataError, UserError
from library.files import SEAL, locked
from library.messages import counted, listed
from library.remote_runs.generations import RemoteFolder, Upload, find_folder
from library.remote_runs.local_copy import LocalCopy

logger = logging.getLogger(__name__)


def fetch(url: str) -> Path:
    """Return the local path of what is at a URL.

    A run, and what is in it, is verified against the hashes of its generation. Anything else is a
    file, a folder of files such as a snapshot, or the prefix of a TensorFlow checkpoint.

    Raises:
        CheckpointError: There is nothing, or it is damaged.
        UnreachableError: The store does not answer.
    """
    url = url.rstrip("/")
    if found := find_folder(url):
        remote, path = found
        copy = fetch_run(remote, path)
        if (copy.folder / path).exists():
            return copy.folder / path
    try:
        return _fetch_plain(url)
    except DataError as error:
        raise CheckpointError(
            f"{url} is neither in a run, nor a file, a folder or a checkpoint's prefix: {error}"
        ) from None


def fetch_run(remote: RemoteFolder, path: str = "", *, with_bulk: bool = False) -> LocalCopy:
    """Return a copy of a run for reading, in step with the bucket.

    Args:
        remote: The run.
        path: The checkpoint in it to read; "" for its newest generation.
        with_bulk: Whether to download what only resuming needs.
    """
    parent, _, name = remote.url.rpartition("/")
    # Runs side by side in a bucket are so here. Other copies are apart, because several commands
    # may run at the same time.
    key = f"{remote.url}/{path}?{with_bulk}" if path or with_bulk else parent
    copy = LocalCopy(remote, local_folder(key, "fetched").parent / name)
    with locked(copy.beside("fetch.lock"), f"the download of {remote.url}", wait=True):
        copy.restore(only=path, with_bulk=with_bulk)
    return copy


def add_changes(copy: LocalCopy) -> None:
    """Add to the bucket what was written into a copy for reading, if anything was.

    Raises:
        UserError: It could not be uploaded; it is kept in the copy.
    """
    remote, sent = copy.remote, dict(copy.remote.current.files)
    files = copy.capture(with_checkpoints=False)
    changes = {path: entry for path, entry in files.items() if sent.get(path) != entry}
    if not changes:
        return
    try:
        remote.add(changes, Upload(copy.staged))
    except UserError as error:
        names = listed(list(changes))
        raise UserError(f"{error}; not uploaded, but kept in {copy.folder}: {names}") from error
    if remote.current.files == sent | changes:  # not if a training has added more
        copy.write_note()
    logger.info(f"uploaded {counted(len(changes), 'file')} to {remote.url}")


def _fetch_plain(url: str) -> Path:
    store, path = open_store(url)
    if url.startswith(("http:", "https:")):
        return fetch_files(url)[0]
    if store.isfile(path):
        return fetch_files(url)[0]
    if store.isdir(path):
        if store.isfile(f"{path}/best/{SEAL}"):  # a run that was copied there
            url = f"{url}/best"
        return fetch_files(f"{url}/*")[0].parent
    return fetch_files(f"{url}.*")[0].parent / url.rpartition("/")[2]
