"""The state of a run: all that a checkpoint restores beside the variables."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from library.training.early_stopping import EarlyStopping


@dataclass
class TrainState:
    """Where a run is. Beside the variables, it is all that a checkpoint restores."""

    step: int = 0  # optimization steps made
    # The epoch, counted from 0, and the batch within it that come next.
    epoch: int = 0
    batch: int = 0
    best: dict[str, Any] | None = None  # metrics.json of the best snapshot
    rows: list[dict[str, Any]] = field(default_factory=list)  # evaluations, as in history.csv
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    elapsed_seconds: float = 0.0

    @property
    def last_epoch(self) -> int:
        """The epoch of the last step, counted from 1."""
        return self.epoch + (self.batch > 0)

    @property
    def evaluated_step(self) -> int:
        """The step after which the last evaluation was, 0 without any."""
        return self.rows[-1]["step"] if self.rows else 0

    def to_json(self) -> dict[str, Any]:
        """Return the entries of a checkpoint's state.json, by the names that version 0.1 chose."""
        stored = dict(vars(self))
        counts, seconds = asdict(stored.pop("early_stopping")), stored.pop("elapsed_seconds")
        return {**stored, "patience": counts, "seconds": seconds}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the state that `to_json` stored."""
        early_stopping = EarlyStopping(**_fields_of(EarlyStopping, stored["patience"]))
        renamed = {"early_stopping": early_stopping, "elapsed_seconds": stored["seconds"]}
        return cls(**_fields_of(cls, stored), **renamed)


def _fields_of(kind: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass's fields; another version may have stored fewer, or more."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in stored.items() if name in names}
