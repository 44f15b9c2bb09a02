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
        return {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "best": self.best,
            "patience": asdict(self.early_stopping),
            "seconds": self.elapsed_seconds,
            "rows": self.rows,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the state that `to_json` stored."""
        # By name: another version may have stored fewer counts, or more.
        names = {each.name for each in fields(EarlyStopping)}
        counts = {name: value for name, value in stored["patience"].items() if name in names}
        return cls(
            step=stored["step"],
            epoch=stored["epoch"],
            batch=stored["batch"],
            best=stored["best"],
            rows=stored["rows"],
            early_stopping=EarlyStopping(**counts),
            elapsed_seconds=stored["seconds"],
        )
