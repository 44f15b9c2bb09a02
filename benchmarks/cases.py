"""Reads benchmarks/cases.yaml: what is measured, against whom, with which goals."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.pairs import Contender

CASES_FILE = Path(__file__).with_name("cases.yaml")
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """What ours is compared with.

    Attributes:
        contender: What does the same work.
        goal: How many times as fast ours should be; None: no goal.
        cpu_goal: The same by processor time.
        readme: The row of the README's table that shows the ratio; '': none.
    """

    contender: Contender
    goal: float | None = None
    cpu_goal: float | None = None
    readme: str = ""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        key: 'group/name'.
        ours: The project's contender.
        peers: What it is compared with.
        rounds: How often they take turns.
        goal_seconds: How long ours should take at most; None: no goal.
    """

    key: str
    ours: Contender
    peers: tuple[Peer, ...]
    rounds: int
    goal_seconds: float | None

    @property
    def group(self) -> str:
        """What `ONLY` names."""
        return self.key.partition("/")[0]


def read_cases() -> list[Case]:
    """Return all cases, in the order of the file."""
    groups = _read()["cases"]
    return [
        Case(
            key=f"{group}/{name}",
            ours=_contender(OURS, given["ours"]),
            peers=tuple(_peer(*each) for each in given["peers"].items()),
            rounds=given.get("rounds", 6),
            goal_seconds=given.get("goal_seconds"),
        )
        for group, cases in groups.items()
        for name, given in cases.items()
    ]


def read_data(*, short: bool) -> tuple[dict[str, Contender], dict[str, object]]:
    """Return what writes each kind of data, by name, and the numbers that arguments name."""
    given = _read()
    writers = {name: each[short] for name, each in given["data"].items()}
    return (
        {name: _contender(name, words) for name, words in writers.items()},
        {name: each[short] for name, each in given["numbers"].items()},
    )


def _read() -> dict[str, Any]:
    return yaml.safe_load(CASES_FILE.read_text(encoding="utf-8"))


def _peer(name: str, given: dict[str, Any]) -> Peer:
    goals = {key: given.get(key) for key in ("goal", "cpu_goal")}
    return Peer(_contender(name, given), **goals, readme=given.get("readme", ""))


def _contender(name: str, given: dict[str, Any] | str) -> Contender:
    if isinstance(given, str):
        given = {"run": given}
    function, *arguments = given["run"].split()
    return Contender(
        name,
        f"benchmarks.{function}",
        tuple(arguments),
        in_peers=given.get("peers", False),
        is_fresh=given.get("fresh", False),
    )
