"""Local copies to train in: leased, restored, uploaded beside the training, and waited for."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from library.dataset.storage import local_folder
from library.errors import SettingsError, StoppedError, UserError
from library.files import locked
from library.remote_runs.generations import RemoteFolder
from library.remote_runs.lease import Lease
from library.remote_runs.local_copy import LocalCopy
from library.remote_runs.uploads import Uploads

logger = logging.getLogger(__name__)

# The default of cache_dir: what is in it can be made again.
_CACHE = "cache"
_ADVICE = "wait for it, or choose another folder"


@contextlib.contextmanager
def training_copies(
    remotes: Sequence[RemoteFolder], wait_seconds: float, *, starts_over: bool, is_cluster: bool
) -> Iterator[list[Path]]:
    """Yield a local copy of each folder, which is uploaded within the block and at its end.

    Args:
        remotes: The folders: that of the checkpoints first, that of the best snapshot last.
        wait_seconds: How long the end waits while nothing can be uploaded.
        starts_over: Whether the training does not resume.
        is_cluster: Whether others resume from the bucket too; then a local copy that is newer than
            the bucket does not count.

    Raises:
        UserError: Another machine trains there, or something could not be uploaded.
        SettingsError: `starts_over`, and there is a run.
    """
    copies = []
    for each in remotes:
        folder = local_folder(each.url)
        copies.append(LocalCopy(each, folder, folder / _CACHE))
    with contextlib.ExitStack() as stack:
        for copy in copies:
            stack.enter_context(locked(copy.beside("url.lock"), copy.remote.url, _ADVICE))
        leases = [Lease(copy.remote, copy.note.get("token", "")) for copy in copies]
        uploads = Uploads(copies, leases, wait_seconds)
        try:
            for lease in leases:
                lease.acquire()
            # Renew the leases from now on: a download may take long.
            uploads.start()
            for copy, lease in zip(copies, leases, strict=True):
                _restore(copy, starts_over=starts_over, is_cluster=is_cluster)
                copy.write_note(lease.token)
                logger.info(f"{copy.remote.url}: the local copy is {copy.folder}")
            uploads.enable()
            yield [copy.folder for copy in copies]
        except BaseException:
            try:
                uploads.finish()
            except (UserError, StoppedError) as error:
                logger.warning(str(error))
            raise
        uploads.finish()


def _restore(copy: LocalCopy, *, starts_over: bool, is_cluster: bool) -> None:
    """Bring a local copy in step with the bucket, unless it is newer."""
    names = copy.remote.names()
    if names and starts_over:
        raise SettingsError(
            f"--resume never: there is a run in {copy.remote.url}, which stays as it is; choose "
            "another folder"
        )
    if names and (is_cluster or copy.note.get("generation") != names[0]):
        copy.move_aside_unsent()
    copy.restore(with_bulk=True)
