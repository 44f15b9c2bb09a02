"""Results files of `make bench`: reading and writing them, their table, and the README's figures.

    python -m benchmarks.results

writes the README's figures anew, as `make bench` and `make docs` do.
"""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cases import Case, Peer, read_cases
from benchmarks.pairs import Ratio, Run, compare
from benchmarks.programs import ROOT

RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN = "<!-- Figures of benchmarks/results/, written by `make bench`. -->\n"
END = "<!-- End of figures. -->\n"
# Median of the cores that other processes used, from which a machine counts as busy.
BUSY_CORES = 0.1

Results = dict[str, Any]


def describe_machine() -> dict[str, Any]:
    """Return the processor's model, the cores used, and the memory."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gigabytes": round(psutil.virtual_memory().total / 1e9),
    }


def case_results(names: Sequence[str], runs: Sequence[Sequence[Run]]) -> dict[str, Any]:
    """Return the runs of ours and of each peer, by name, as JSON has them."""
    return {
        name: [{key: float(f"{value:.5g}") for key, value in asdict(run).items()} for run in each]
        for name, each in zip(names, runs, strict=True)
    }


def read_results(path: Path) -> Results:
    """Read a results file."""
    return json.loads(path.read_text(encoding="utf-8"))


def published_results() -> Results | None:
    """Return the newest results with all cases, or the newest ones, if none has all, or None."""
    keys = {case.key for case in read_cases()}

    def rank(results: Results) -> tuple[bool, str]:
        return keys <= results["cases"].keys(), results["date"]

    return max((read_results(path) for path in RESULTS.glob("*.json")), key=rank, default=None)


def runs_of(results: Results, case: Case, name: str) -> list[Run]:
    """Return the runs of a contender; an empty list if it was not measured."""
    return [Run(**each) for each in results["cases"].get(case.key, {}).get(name, ())]


def ratios_of(results: Results) -> Iterator[tuple[Case, Peer, Ratio]]:
    """Yield each ratio that was measured, in the order of the cases."""
    for case in read_cases():
        ours = runs_of(results, case, case.ours.name)
        for peer in case.peers:
            if theirs := runs_of(results, case, peer.contender.name):
                yield case, peer, compare(ours, theirs)


def describe_conditions(results: Results) -> str:
    """Return where and when the results were measured, and whether the machine was busy."""
    runs = [run for case in results["cases"].values() for each in case.values() for run in each]
    others = statistics.median(each["other_cores"] for each in runs)
    loads = sorted(each["load"] for each in runs)
    machine = results["machine"]
    words = (
        f"{results['date'][:10]}, commit {results['commit']}, {machine['processor']}, "
        f"{machine['cores']} cores; load average before the runs {loads[0]:.1f} to {loads[-1]:.1f}"
    )
    if others > BUSY_CORES:
        words += f"; not quiet: other processes used {others:.1f} cores, which disturbs wall time"
    return words


def format_table(results: Results) -> str:
    """Return all ratios with their goals, as text."""
    lines, last = [describe_conditions(results)], ""
    lines.append("how many times as fast ours is, by wall time [interval] and processor time")
    for case, peer, ratio in ratios_of(results):
        if case.key != last:
            last, runs = case.key, runs_of(results, case, case.ours.name)
            lines.append(f"{last}: {describe_seconds(case, runs)}")
        words = f"{ratio.median:6.2f} [{ratio.low:.2f}, {ratio.high:.2f}] {ratio.cpu:6.2f}"
        for kind, goal, found in (
            ("goal", peer.goal, ratio.median),
            ("by processor time", peer.cpu_goal, ratio.cpu),
        ):
            if goal:
                words += f"  {kind} {goal:g} {'reached' if found >= goal else 'missed'}"
        lines.append(f"  {words}  {peer.contender.name}")
    return "\n".join(lines)


def describe_seconds(case: Case, runs: Sequence[Run]) -> str:
    """Return the time of ours for a unit of work, with its goal."""
    seconds = statistics.median(each.seconds for each in runs)
    words = f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
    if case.goal_seconds:
        is_reached = "reached" if seconds <= case.goal_seconds else "missed"
        words += f", goal {case.goal_seconds:g} s {is_reached}"
    return words


def readme_block(results: Results | None) -> str:
    """Return the README's figures, as Markdown."""
    if not results:
        return "Not measured yet: `make bench`.\n"
    lines = [f"Measured: {describe_conditions(results)}.", ""]
    lines += ["| task | compared with | times as fast |", "| --- | --- | --- |"]
    last = ""
    for _, peer, ratio in ratios_of(results):
        if peer.readme:
            task, last = "" if peer.readme == last else peer.readme, peer.readme
            lines.append(f"| {task} | {peer.contender.name} | {ratio.median:.2f} |")
    return "\n".join(lines) + "\n"


def write_readme() -> None:
    """Write the README's figures anew."""
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    block = readme_block(published_results())
    README.write_text(f"{head}{BEGIN}{block}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    write_readme()
