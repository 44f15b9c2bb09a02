"""What the rules conclude from facts: one line each, with a verdict."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

OK: Literal["ok"] = "ok"
WARNING: Literal["warning"] = "warning"  # slower than need be, or a risk
PROBLEM: Literal["problem"] = "problem"  # prevents training

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    verdict: Verdict
    subject: str
    text: str


def format_findings(findings: Iterable[Finding]) -> list[str]:
    """Return the findings as aligned lines: verdict, subject, text."""
    findings = list(findings)
    width = max((len(each.subject) for each in findings), default=0)
    return [f"{each.verdict:7}  {each.subject:{width}}  {each.text}" for each in findings]


def to_json(findings: Iterable[Finding], facts: Any) -> str:
    """Return the findings, and the facts (a dataclass) behind them, as indented JSON."""
    return json.dumps({"findings": [asdict(each) for each in findings], **asdict(facts)}, indent=1)
