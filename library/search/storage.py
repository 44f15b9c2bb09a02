"""Where a study is stored: a journal file, or a database by its URL.

A trial that is running is known to be at work by a lock file, which ends with its process. For a
database, whose workers may share no disk, Optuna's heartbeats tell, too.
"""

import contextlib
import logging
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.errors import SettingsError, UnreachableError, first_line
from library.files import write_file
from library.messages import shown

logger = logging.getLogger(__name__)

JOURNAL = "study.journal"
# A worker on another machine whose last heartbeat is older than this is taken for dead.
HEARTBEAT_SECONDS, GRACE_SECONDS = 15, 90
_DESCRIPTION = "description"


@dataclass(frozen=True)
class StudyStore:
    """A study in its storage.

    Attributes:
        storage: Optuna's storage.
        study_id: The study's id in it.
        name: The study's name.
        location: Where it is, without a password.
        lock_stem: Beginning of the paths of lock files.
        place: Names the disk that the lock files are on.
    """

    storage: Any
    study_id: int
    name: str
    location: str
    lock_stem: Path
    place: str

    def close(self) -> None:
        """Close the connections to a database."""
        if engine := getattr(self.storage, "engine", None):
            self.storage.remove_session()
            engine.dispose()

    def trials(self) -> list[Any]:
        """Return all trials in order, as Optuna's FrozenTrial. Don't change them."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def lock_path(self, number: int) -> Path:
        """Return the file that is locked while a process on this disk runs a trial."""
        return self.lock_stem.with_name(f"{self.lock_stem.name}.{number:04}.lock")

    def check_description(self, description: Mapping[str, Any], advice: str) -> None:
        """Store what the study depends on, or compare it with what was stored.

        As long as no trial has reported or finished anything, it may change.

        Args:
            description: Setting → JSON value.
            advice: What to do if one differs, beside using the same value.

        Raises:
            SettingsError: The study was made with another value.
        """
        stored = self.storage.get_study_user_attrs(self.study_id).get(_DESCRIPTION)
        if stored == description:
            return
        trials = self.trials()
        if stored and any(each.intermediate_values or each.state.is_finished() for each in trials):
            for name in (*description, *stored):
                before, now = stored.get(name), description.get(name)
                if before != now:
                    raise SettingsError(
                        f"the study in {self.location} has {name} {shown(before)}, now it is "
                        f"{shown(now)}: use the same for all trials, or {advice}"
                    )
        self.storage.set_study_user_attr(self.study_id, _DESCRIPTION, dict(description))


@contextlib.contextmanager
def explain_storage_errors() -> Iterator[None]:
    """Turn errors of a database within the block into one line without its password."""
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ or error
        reason = first_line(getattr(cause, "orig", None) or cause)
        raise UnreachableError(
            f"the storage of the study does not answer ({reason}): check it, then run the same "
            "command to resume"
        ) from error


def open_study(storage: str | None, run_dir: Path, directions: Sequence[str]) -> StudyStore:
    """Open a study, or make it.

    Args:
        storage: Path of a journal file, or URL of a database; None: a journal in `run_dir`.
        run_dir: Folder of the search; a study in a database is named after it.
        directions: "minimize" or "maximize" for each objective.

    Raises:
        SettingsError: The URL or the study is not usable.
    """
    import optuna
    from optuna.exceptions import DuplicatedStudyError
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage and "://" in storage:
        opened, name, location = _open_database(storage), str(run_dir), _without_password(storage)
        lock_stem, place = run_dir / ".trial", _read_place(run_dir / ".place")
    else:
        path = Path(storage or run_dir / JOURNAL)
        opened, name, location = _open_journal(path), "search", str(path)
        # Whoever sees the journal sees its locks.
        lock_stem, place = path.with_name(f".{path.name}"), "journal"
    wanted = [StudyDirection[each.upper()] for each in directions]
    with contextlib.suppress(DuplicatedStudyError):
        opened.create_new_study(wanted, name)
    study_id = opened.get_study_id_from_name(name)
    if [*opened.get_study_directions(study_id)] != wanted:
        raise SettingsError(
            f"the study in {location} has other objectives: choose another --run_dir"
        )
    return StudyStore(opened, study_id, name, location, lock_stem, place)


@contextlib.contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Ignore Optuna's warnings within the block that heartbeats, there since 2021, may change."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _open_journal(path: Path) -> Any:
    from filelock import FileLock
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    # Optuna's own lock outlives a killed process, and then delays the next one by 30 seconds.
    lock: Any = FileLock(path.with_name(f".{path.name}.mutex"), fallback_to_soft=False)
    try:
        with lock:
            _remove_torn_line(path)
    except (OSError, NotImplementedError):
        lock = None  # The file system has no locks: Optuna's works without.
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _remove_torn_line(path: Path) -> None:
    """Remove the last line if a power cut left it without its end: Optuna would append to it."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            logger.warning(f"{path}: removed the last line, which was not written whole")
            file.truncate(whole)
            os.fsync(file.fileno())


def _open_database(url: str) -> Any:
    import sqlalchemy.exc
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    try:
        with without_experimental_warnings():
            return RDBStorage(
                url,
                # A connection may have ended during a long training.
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
    except (ImportError, sqlalchemy.exc.NoSuchModuleError, sqlalchemy.exc.ArgumentError) as error:
        # Of several lines, Optuna's advice about drivers among them.
        raise SettingsError(
            f"storage {_without_password(url)} can't be opened ({first_line(error)}); write "
            "driver and address, as in postgresql+psycopg://user@host/database, and install the "
            "driver's package"
        ) from None


def _without_password(url: str) -> str:
    import sqlalchemy

    with contextlib.suppress(sqlalchemy.exc.ArgumentError):
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    return "URL"


def _read_place(path: Path) -> str:
    """Return the name that a folder's disk has, made by the first process that asks."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # A link, unlike a replacement, leaves what another process has just made.
            fresh = path.with_name(f"{path.name}.{uuid.uuid4()}")
            write_file(fresh, str(uuid.uuid4()))
            try:
                os.link(fresh, path)
            finally:
                fresh.unlink()
    return path.read_text(encoding="utf-8")
