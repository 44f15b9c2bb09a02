"""Decisions about suspicious images, each written to corrections.csv at once."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from library.cleaning.page import render_page
from library.cleaning.suspects import SUSPECTS, Suspect, Suspects, read_suspects
from library.dataset.corrections import (
    ACTIONS,
    KEEP,
    RELABEL,
    SEPARATOR,
    Correction,
    read_corrections,
    write_corrections,
)
from library.dataset.sources.base import composed
from library.errors import UserError, printable, reason_of
from library.files import locked, read_regular_file

CORRECTIONS = "corrections.csv"
# What a decision is before it is made, and after it was undone.
UNDECIDED = "undecided"

# {"action": one of ACTIONS or UNDECIDED, "labels": the new classes if it is RELABEL, else []}.
Decision = dict[str, Any]


class Review:
    """The review of the suspects in a folder. Not thread-safe; several processes may have one.

    Args:
        folder: The folder of suspects.json and corrections.csv.

    Raises:
        DataError: There are no suspects, or the corrections are not readable.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / CORRECTIONS
        self._version = ""
        self._suspects = self._read_suspects()
        self.state()

    @property
    def count(self) -> int:
        """The number of suspects."""
        return len(self._read_suspects().suspects)

    def render(self) -> str:
        """Return the page with all decisions as HTML."""
        return render_page(self._read_suspects(), self.state())

    def state(self) -> dict[str, Any]:
        """Return {"version": …, "decisions": {id: decision}} of what corrections.csv has.

        The version is another one when the suspects are others.
        """
        suspects = self._read_suspects()
        rows = {composed(row.file): row for row in self._read_rows()}
        found = {
            str(each.id): decision
            for each in suspects.suspects
            if (decision := self._decision(each, rows))["action"] != UNDECIDED
        }
        return {"version": self._version, "decisions": found}

    def decide(self, request: Any) -> dict[str, Any]:
        """Write a decision, if the image and what was decided before are what the person saw.

        Args:
            request: The JSON value {"version", "id", "action", "labels", "expected"}: `expected` is
                the decision that this one replaces.

        Returns:
            The state after it; with a `message` if nothing was written, because another window or
            process was faster.

        Raises:
            ValueError: The request makes no sense.
            UserError: It could not be written; what was written before is intact.
        """
        suspects = self._read_suspects()
        suspect, decision = _read_request(request, suspects)
        if request.get("version") != self._version:
            return self.state() | {"message": "the suspects are others now: reload this page"}
        lock = self.folder / f".{CORRECTIONS}.lock"
        try:
            with locked(lock, str(self.path), wait=True):
                rows = self._read_rows()
                own = {composed(row.file): row for row in rows}
                if request.get("expected") != self._decision(suspect, own):
                    message = "it was decided elsewhere meanwhile; decide again if that is wrong"
                    return self.state() | {"message": message}
                rows = [row for row in rows if composed(row.file) != composed(suspect.file)]
                if decision["action"] != UNDECIDED:
                    rows.append(_to_row(suspect, decision, own.get(composed(suspect.file))))
                write_corrections(self.path, rows)
        except OSError as error:
            raise UserError(f"{self.path} can't be written: {reason_of(error)}") from error
        return self.state()

    def _read_suspects(self) -> Suspects:
        """Return the suspects, which another run of `clean` may have replaced."""
        with suppress(OSError):
            content = read_regular_file(self.folder / SUSPECTS)
            version = hashlib.sha256(content).hexdigest()[:16]
            if version == self._version:
                return self._suspects
            self._suspects, self._version = read_suspects(self.folder), version
            return self._suspects
        return read_suspects(self.folder)  # Raises the error.

    def _read_rows(self) -> Sequence[Correction]:
        return read_corrections(self.path)[0] if self.path.exists() else ()

    def _decision(self, suspect: Suspect, rows: Mapping[str, Correction]) -> Decision:
        """Return the decision about a suspect, as rows by file name tell it."""
        row = rows.get(composed(suspect.file))
        # A decision about an image that was replaced is none about the new one.
        if row is None or "" != row.sha256 != (suspect.sha256 or row.sha256):
            return {"action": UNDECIDED, "labels": []}
        new_label = printable(row.new_label)
        labels = new_label.split(SEPARATOR) if self._suspects.multi_label else [new_label]
        return {"action": row.action, "labels": labels if new_label else []}


def _read_request(request: Any, suspects: Suspects) -> tuple[Suspect, Decision]:
    """Return the suspect and the decision of a request. Raises ValueError if it makes no sense."""
    match request:
        case {"id": int(number), "action": str(action), "labels": [*labels]}:
            pass
        case _:
            raise ValueError("a decision has an id, an action, labels, and what it expects")
    if not 0 <= number < len(suspects.suspects) or action not in (*ACTIONS, UNDECIDED):
        raise ValueError(f"there is no suspect {number}, or no action {action!r}")
    if unknown := [each for each in labels if each not in suspects.classes]:
        raise ValueError(f"there is no class {unknown[0]!r}")
    if action != RELABEL and labels:
        raise ValueError(f"the action {action} has no new labels")
    suspect = suspects.suspects[number]
    if action == RELABEL:
        labels = sorted(set(labels), key=suspects.classes.index)
        if not suspects.multi_label and len(labels) != 1:
            raise ValueError("an image has one class")
        if set(labels) == set(suspect.label):
            action, labels = KEEP, []
    return suspect, {"action": action, "labels": labels}


def _to_row(suspect: Suspect, decision: Decision, previous: Correction | None) -> Correction:
    """Return the row of a decision, with the cells that a person added to the previous one."""
    return Correction(
        line=0,
        file=suspect.file,
        sha256=suspect.sha256 or "",
        action=decision["action"],
        label=SEPARATOR.join(suspect.label),
        new_label=SEPARATOR.join(decision["labels"]),
        reason=suspect.explanation,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        others=previous.others if previous else {},
    )
