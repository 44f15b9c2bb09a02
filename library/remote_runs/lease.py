"""The lease on a run in a bucket: an object that its holder renews, and others watch.

No clocks are compared: a holder that does not renew the lease while another process watches it for
LEASE_SECONDS is dead.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import time
from typing import Any

from library.dataset.storage import NotFoundError
from library.errors import UserError
from library.files import parse_json
from library.remote_runs.generations import INNER, RemoteFolder

logger = logging.getLogger(__name__)

LEASE_SECONDS = 120.0
RENEWAL_SECONDS = 30.0
_POLL_SECONDS = 2.0
# Without conditional writes, others may be writing at the same time: the last one holds the lease.
_SETTLE_SECONDS = 1.0
_PATH = f"{INNER}/lease.json"


class LostLeaseError(UserError):
    """Another process holds the lease now."""


class Lease:
    """The right to write checkpoints to a RemoteFolder."""

    def __init__(self, folder: RemoteFolder, token: str = "") -> None:
        """Prepare.

        Args:
            folder: The folder.
            token: That of an earlier lease, whose holder has ended.
        """
        self._folder, self._previous = folder, token
        self.token = secrets.token_hex(8)
        self._renewals = 0

    def acquire(self) -> None:
        """Take the lease, if need be after its holder has been silent for LEASE_SECONDS.

        Raises:
            UserError: Another process holds it.
            UnreachableError: The store does not answer.
        """
        found = self._read()
        if found and found.get("token") != self._previous:
            self._wait_for_silence(found)
        if found:
            self._folder.remove([_PATH])
        # Another process may have come first.
        with contextlib.suppress(FileExistsError):
            self._write("create")
        if found:
            time.sleep(_SETTLE_SECONDS)
        self.check()

    def renew(self) -> None:
        """Show that the holder is alive. Raise LostLeaseError if another holds the lease."""
        self.check(is_there=False)
        self._renewals += 1
        self._write("overwrite")

    def check(self, *, is_there: bool = True) -> None:
        """Raise LostLeaseError if another process holds the lease.

        Args:
            is_there: Whether the lease must be there.
        """
        found = self._read()
        if found.get("token") != self.token and (found or is_there):
            raise LostLeaseError(_in_use(self._folder.url, found))

    def release(self) -> None:
        """Let others take the lease."""
        self.check()
        self._folder.remove([_PATH])

    def _wait_for_silence(self, found: dict[str, Any]) -> None:
        """Wait until the holder counts as dead. Raise UserError if it is alive."""
        url = self._folder.url
        logger.info(
            f"{url} was in use by {found.get('holder')}: waiting up to {LEASE_SECONDS:g} s to see "
            "whether that still runs"
        )
        end = time.monotonic() + LEASE_SECONDS
        while time.monotonic() < end:
            time.sleep(min(_POLL_SECONDS, LEASE_SECONDS / 4))
            now = self._read()
            if not now:
                return
            if now != found:
                raise UserError(_in_use(url, now))

    def _read(self) -> dict[str, Any]:
        """Return the lease in the bucket; {} if there is none, or a damaged one."""
        try:
            found = parse_json(self._folder.read_object(_PATH))
        except (NotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, mode: str) -> None:
        lease = {
            "holder": f"process {os.getpid()} on {socket.gethostname()}",
            "token": self.token,
            "renewals": self._renewals,
            "renewed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._folder.write(_PATH, json.dumps(lease).encode(), mode)


def _in_use(url: str, found: dict[str, Any]) -> str:
    return (
        f"{url} is in use by {found.get('holder', 'another process')} (lease renewed "
        f"{found.get('renewed', 'just now')}): wait for it, or choose another folder"
    )
