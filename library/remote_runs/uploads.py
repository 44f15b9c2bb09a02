"""Uploads beside a training: a store that is slow or away neither delays a step nor stops it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from library.errors import UserError, first_line, stopped_by
from library.messages import listed
from library.remote_runs.generations import Upload, checkpoint_of
from library.remote_runs.lease import RENEWAL_SECONDS, Lease, LostLeaseError
from library.remote_runs.local_copy import LocalCopy, Marks

logger = logging.getLogger(__name__)

# How often to look for new checkpoints, and how long other files, such as logs, may wait.
_POLL_SECONDS, _OTHERS_SECONDS = 1.0, 60.0
# Between attempts while a store does not answer.
_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0
# A silence of the store is mentioned if it lasts so long, then after twice that, and so on.
_SILENT_SECONDS = 30.0
# The end waits for longer with a line, and does not wait longer to give back the leases.
_MENTION_SECONDS, _RELEASE_SECONDS = 5.0, 10.0


class Uploads:
    """Uploads what changes in the local copies of a run, from `start` to `finish`."""

    def __init__(
        self, copies: Sequence[LocalCopy], leases: Sequence[Lease], wait_seconds: float
    ) -> None:
        """Prepare; nothing is uploaded yet.

        Args:
            copies: The local copies: that of the checkpoints first, that of the best snapshot last.
            leases: The lease of each, which the caller has acquired.
            wait_seconds: How long the end waits while nothing can be uploaded.
        """
        self._copies, self._leases, self._wait_seconds = copies, leases, wait_seconds
        self._urls = ", ".join(each.remote.url for each in copies)
        # The files that are uploaded, and when there were none but these for the last time.
        self._uploaded: list[Marks] = [Marks() for _ in copies]
        self._in_step = self._progress = time.monotonic()
        self._silence, self._lost = _SILENT_SECONDS, False
        self._upload = _Job(self._upload_all)
        self._renewal = _Job(self._renew, RENEWAL_SECONDS)
        self._enabled, self._closing, self._done = (threading.Event() for _ in range(3))

    def start(self) -> None:
        """Renew the leases from now on.

        All threads are daemons, because a store may never answer.
        """
        threading.Thread(target=self._watch, daemon=True).start()

    def enable(self) -> None:
        """Upload from now on."""
        self._enabled.set()

    def finish(self) -> None:
        """Wait until everything is uploaded, and give the leases back.

        Raises:
            UserError: Nothing could be uploaded for the waiting time, or another process holds a
                lease.
            StoppedError: A signal ended the waiting.
        """
        begin, is_mentioned = time.monotonic(), False
        self._closing.set()
        try:
            while self._enabled.is_set() and not self._done.wait(_POLL_SECONDS / 4):
                silent = time.monotonic() - max(begin, self._progress)
                if silent > self._wait_seconds:
                    break
                if silent > _MENTION_SECONDS and not is_mentioned:
                    logger.info(f"waiting up to {self._wait_seconds:g} s for {self._urls}")
                    is_mentioned = True
        except KeyboardInterrupt as interrupt:
            raise stopped_by(interrupt, self._describe_missing()) from None
        finally:
            self._done.set()
            release = threading.Thread(target=self._release, daemon=True)
            release.start()
            release.join(_RELEASE_SECONDS)
        if self._lost or (self._enabled.is_set() and self._missing()):
            raise UserError(self._describe_missing())

    def _watch(self) -> None:
        """Start what is due, and mention a store that does not answer."""
        while not self._done.wait(_POLL_SECONDS):
            self._renewal.start_if_due()
            if isinstance(self._upload.error or self._renewal.error, LostLeaseError):
                self._lost = True
                self._done.set()
                logger.warning(f"{self._describe_missing()}; the training continues")
                return
            if not self._enabled.is_set():
                continue
            marks = [each.marks() for each in self._copies]
            changes = [now.all != sent.all for now, sent in zip(marks, self._uploaded, strict=True)]
            if not any(changes):
                self._in_step = time.monotonic()
                if self._closing.is_set() and not self._upload.is_running:
                    self._done.set()
                continue
            late = time.monotonic() - self._in_step
            is_urgent = any(a.seals != b.seals for a, b in zip(marks, self._uploaded, strict=True))
            if is_urgent or self._closing.is_set() or late > _OTHERS_SECONDS:
                self._upload.start_if_due()
                self._report()

    def _report(self) -> None:
        """Log that nothing could be uploaded for some time."""
        silent = time.monotonic() - max(self._in_step, self._progress)
        if silent > self._silence or (self._upload.error and self._silence == _SILENT_SECONDS):
            self._silence = max(2 * silent, 2 * _SILENT_SECONDS)
            logger.warning(
                f"nothing could be uploaded to {self._urls} for {silent:.0f} s ({self._reason()}); "
                "trying again, beside the training"
            )

    def _upload_all(self) -> None:
        marks = [each.marks() for each in self._copies]
        captured = [each.capture() for each in self._copies]
        for number in reversed(range(len(captured))):
            copy, lease = self._copies[number], self._leases[number]
            files = captured[number]
            if not files.items() <= copy.remote.current.files.items():
                upload = Upload(copy.staged, lease.check, self._note_progress)
                copy.remote.publish(files, upload)
            copy.write_note(lease.token)
        late, self._uploaded = time.monotonic() - self._in_step, marks
        if self._silence > _SILENT_SECONDS:
            logger.info(f"{self._urls} has everything again, {late:.0f} s late")
        self._silence = _SILENT_SECONDS
        self._note_progress()

    def _note_progress(self) -> None:
        self._progress = time.monotonic()

    def _renew(self) -> None:
        for each in self._leases:
            each.renew()

    def _release(self) -> None:
        for each in self._leases:
            with contextlib.suppress(UserError):
                each.release()

    def _missing(self) -> list[str]:
        """Return what is not uploaded: files, and folders of checkpoints and snapshots."""
        missing = {
            checkpoint_of(path) or path.rpartition("/")[0] or path
            for copy, sent in zip(self._copies, self._uploaded, strict=True)
            for path, _ in copy.marks().all - sent.all
        }
        return sorted(missing)

    def _describe_missing(self) -> str:
        folders = ", ".join(str(each.folder) for each in self._copies)
        if self._lost:
            return f"{self._reason()}; nothing more is uploaded, what is here stays in {folders}"
        return (
            f"not uploaded to {self._urls} ({self._reason()}): {listed(self._missing())}. This is "
            f"kept in {folders}: run the same command again to upload it"
        )

    def _reason(self) -> str:
        error = self._upload.error or self._renewal.error
        if error is None:
            return "no answer"
        return first_line(error if isinstance(error, LostLeaseError) else error.__cause__ or error)


class _Job:
    """Something that may take any time, done again and again, each time in a thread of its own."""

    def __init__(self, work: Callable[[], None], pause: float = 0.0) -> None:
        """Prepare.

        Args:
            work: What to do.
            pause: Seconds from its end until it is due again.
        """
        self._work, self._pause = work, pause
        self._thread = threading.Thread()
        self._due, self._failures = 0.0, 0
        self.error: Exception | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is being done."""
        return self._thread.is_alive()

    def start_if_due(self) -> None:
        """Start it, unless it is running, or it is too early."""
        if not self.is_running and time.monotonic() >= self._due:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            logger.debug("", exc_info=True)
            self.error = error
            pause = min(_RETRY_SECONDS * 2**self._failures, _MAX_RETRY_SECONDS)
            self._failures += 1
        else:
            self.error, self._failures, pause = None, 0, self._pause
        self._due = time.monotonic() + pause
