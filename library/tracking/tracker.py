"""The interface of experiment trackers. Those of the project are in project/trackers.py.

Trackers are used in the process that sends events (library/tracking/sender.py), never in the
training: they may be slow, block or fail. What fails is sent again later.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

FINISHED, FAILED, INTERRUPTED, PRUNED = "finished", "failed", "interrupted", "pruned"


class RejectedError(Exception):
    """A tracker does not accept an event; sending it again is of no use, so it is left out."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows of a run when it connects.

    Attributes:
        id: A random ID, the same after the run was resumed.
        name: The last part of the run's folder, such as `current` or `seed_0`.
        group: The name of the experiment that the run belongs to, such as a search; None: none.
        started: When it was started first, in seconds since 1970.
        folder: The run's folder.
        memory: JSON values that the tracker wants to find again after the run was resumed, such as
            the ID that a server gave to the run.
    """

    id: str
    name: str
    group: str | None
    started: float
    folder: Path
    memory: MutableMapping[str, Any]


class Parameter(NamedTuple):
    """A setting of a run: a JSON value, and where it comes from, such as `command line`."""

    value: Any
    source: str


class Metrics(NamedTuple):
    """Metrics of one training step: name → value, at a time in seconds since 1970."""

    step: int
    time: float
    values: Mapping[str, float]


class Tracker:
    """One run as a tracker shows it. Subclasses override what they are interested in.

    Any method may raise an exception: the same events are then sent again later.
    """

    # The package that the tracker needs, and the extra of pyproject.toml that installs it.
    package: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None
    # Whether events are safe when a method returns; if not, only when `close` does.
    is_synchronous = True

    @classmethod
    def check(cls) -> None:
        """Raise SettingsError if the environment lacks something. Called before training."""

    def __init__(self, run: TrackedRun) -> None:
        """Connect, to the run that is there already if it was resumed."""
        self.run = run

    @property
    def url(self) -> str | None:
        """Where to look at the run; None if unknown."""
        return None

    def log_parameters(self, parameters: Mapping[str, Parameter], tags: Mapping[str, str]) -> None:
        """Log the settings, and facts such as the git commit, when training starts or resumes."""

    def log_metrics(self, rows: Sequence[Metrics]) -> None:
        """Log metrics, in the order in which they came.

        A row may come twice if the connection was lost while it was sent.
        """

    def log_file(self, path: Path, name: str) -> None:
        """Log a file, or a folder of files, under a name. It replaces an earlier one."""

    def finish(self, status: str, ended: float) -> None:
        """Log how the run ended (FINISHED, FAILED, INTERRUPTED or PRUNED), and when.

        It may be resumed.
        """

    def close(self) -> None:
        """Disconnect; wait until everything is sent."""
