"""`make bench`: measure this project against its peers, or against another revision of itself.

    python -m benchmarks [--only training,inputs] [--short] [--base REVISION]

Results go to benchmarks/results/<date>-<commit>.json; a second call at the same commit on the same
day adds its cases. With --short, small data and few rounds show that everything runs: nothing is
written. With --base, only ours is measured, at both revisions, in turn: marked as slower is what
takes 3 % more time by the median over the rounds, and more time in so many rounds that a sign test
calls it no chance (p < 0.05); then the exit code is 1. The benchmarks themselves are those of this
checkout.
"""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import results as results_files
from benchmarks.cases import Case, read_cases, read_data
from benchmarks.pairs import (
    Contender,
    ContenderError,
    Process,
    Ratio,
    Run,
    compare,
    sign_test,
    take_turns,
)
from benchmarks.programs import ROOT

# Rounds with --base; of those that take long, as many as the sign test needs.
BASE_ROUNDS, LONG_BASE_ROUNDS = 8, 5
SHORT_ROUNDS = 2
SLOWER, CHANCE = 0.97, 0.05


class Bench:
    """Measures cases.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._data, self._values = read_data(short=options.short)
        self._values["sources"] = options.photographs

    def measure(self, case: Case) -> dict[str, object]:
        """Return the runs of ours and of its peers, as a results file has them."""
        peers = [each.contender for each in case.peers]
        if not self._options.peers.exists():
            peers = [each for each in peers if not each.in_peers]
        while True:
            contenders = [case.ours, *peers]
            try:
                runs = self._take_turns([(each, ROOT) for each in contenders], case.rounds)
                return results_files.case_results([each.name for each in contenders], runs)
            except ContenderError as error:
                if error.contender not in peers:
                    raise
                print(f"left out: {error}", file=sys.stderr, flush=True)
                peers.remove(error.contender)

    def measure_revisions(self, case: Case, base: Path) -> Ratio:
        """Return how many times as fast ours is as it was."""
        rounds = BASE_ROUNDS if case.rounds > LONG_BASE_ROUNDS else LONG_BASE_ROUNDS
        return compare(*self._take_turns([(case.ours, ROOT), (case.ours, base)], rounds))

    def _take_turns(
        self, contenders: Sequence[tuple[Contender, Path]], rounds: int
    ) -> list[list[Run]]:
        """Measure contenders, each with the checkout that it takes the project from."""
        for each, _ in contenders:
            self._prepare(each)
        with ExitStack() as stack:
            processes = [
                stack.enter_context(Process(each, self._python(each), root, self._values))
                for each, root in contenders
            ]
            return take_turns(processes, SHORT_ROUNDS if self._options.short else rounds)

    def _python(self, contender: Contender) -> str:
        return str(self._options.peers) if contender.in_peers else sys.executable

    def _prepare(self, contender: Contender) -> None:
        """Write the data that a contender's arguments name, unless they are there."""
        fields = [x for each in contender.arguments for x in string.Formatter().parse(each)]
        for name in [each[1] for each in fields if each[1] in self._data]:
            writer = self._data[name]
            self._prepare(writer)
            arguments = [each.format(**self._values) for each in writer.arguments]
            source = ROOT / Path(*writer.function.partition(":")[0].split(".")).with_suffix(".py")
            digest = hashlib.sha256(" ".join(arguments).encode() + source.read_bytes())
            folder = self._options.data / f"{name}-{digest.hexdigest()[:8]}"
            if not folder.exists():
                print(f"writing {folder}", file=sys.stderr, flush=True)
                folder.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                    target = f"{work}/{name}"
                    command = ["-m", "benchmarks.contender", writer.function, target, *arguments]
                    null = subprocess.DEVNULL
                    subprocess.run([sys.executable, *command], cwd=ROOT, stdin=null, check=True)
                    Path(target).rename(folder)
            self._values[name] = str(folder)


def git(*words: str) -> str:
    """Return the output of a git command in this checkout."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"benchmarks: git {' '.join(words)}: {done.stderr.strip()}", file=sys.stderr)
        sys.exit(2)
    return done.stdout.strip()


def measure_all(bench: Bench, cases: Sequence[Case], path: Path | None) -> int:
    """Measure cases against their peers; add them to a results file after each; print a table."""
    now = datetime.datetime.now(datetime.UTC)
    results = {
        "date": now.isoformat(timespec="seconds"),
        "commit": git("rev-parse", "--short", "HEAD"),
        "is_modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        "machine": results_files.describe_machine(),
        "cases": {},
    }
    if path and path.exists():
        results["cases"] = results_files.read_results(path)["cases"]
    failures = 0
    for case in cases:
        print(f"measuring {case.key}", file=sys.stderr, flush=True)
        try:
            results["cases"][case.key] = bench.measure(case)
        except ContenderError as error:
            print(f"failed: {case.key}: {error}", file=sys.stderr, flush=True)
            failures += 1
            continue
        if path:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if results["cases"]:
        print(results_files.format_table(results))
    if path and path.exists():
        results_files.write_readme()
    return int(failures > 0)


def is_slower(ratio: Ratio) -> bool:
    """Return whether a ratio shows that ours is slower, beyond noise."""
    chance = sign_test(ratio.rounds - ratio.slower_rounds, ratio.rounds)
    return ratio.median < SLOWER and chance < CHANCE


def compare_revisions(bench: Bench, cases: Sequence[Case], revision: str) -> int:
    """Print how many times as fast each case is as at another revision, and mark slower ones."""
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    slower = 0
    print(f"times as fast as {revision}, by wall time [interval] and processor time", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        git("worktree", "add", "--quiet", "--detach", str(base), commit)
        try:
            shutil.rmtree(base / "benchmarks", ignore_errors=True)
            shutil.copytree(ROOT / "benchmarks", base / "benchmarks")
            # Without bytecode, the first start of each program would be slow.
            compile_all = [sys.executable, "-m", "compileall", "-q"]
            for root in (ROOT, base):
                subprocess.run([*compile_all, root / "library", root / "project"], check=True)
            for case in cases:
                try:
                    ratio = bench.measure_revisions(case, base)
                except ContenderError as error:
                    print(f"{case.key}: not comparable: {error}", flush=True)
                    continue
                slower += is_slower(ratio)
                words = f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] {ratio.cpu:.3f}"
                print(words, "SLOWER" if is_slower(ratio) else "", case.key, flush=True)
        finally:
            git("worktree", "remove", "--force", str(base))
    return int(slower > 0)


def read_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    groups = list(dict.fromkeys(case.group for case in read_cases()))
    parser.add_argument("--only", default="", help=f"some of: {','.join(groups)}")
    parser.add_argument("--short", action="store_true", help="small data and two rounds, for a try")
    parser.add_argument("--base", default="", help="revision of the project to compare with")
    parser.add_argument("--cores", default="", help="cores to use, as 0,1; default: all")
    parser.add_argument("--show", type=Path, help="print the table of a results file")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--photographs", default="/usr/share/backgrounds", help="folder of JPEGs")
    parser.add_argument("--data", type=Path, default=ROOT / "out" / "benchmarks")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else groups
    if unknown := set(options.only) - set(groups):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(groups)}")
    # Not resolved: an environment's interpreter is a link.
    options.peers, options.data = options.peers.absolute(), options.data.absolute()
    return options


def main() -> int:
    """Measure what the command line asks for."""
    options = read_options()
    if options.show:
        print(results_files.format_table(results_files.read_results(options.show)))
        return 0
    if options.cores:
        os.sched_setaffinity(0, map(int, options.cores.split(",")))
    if not options.base and not options.peers.exists():
        print(f"no {options.peers}: peers left out; `make bench-peers`", file=sys.stderr)
    cases = [case for case in read_cases() if case.group in options.only]
    bench = Bench(options)
    if options.base:
        return compare_revisions(bench, cases, options.base)
    today = datetime.datetime.now(datetime.UTC).date()
    name = f"{today}-{git('rev-parse', '--short', 'HEAD')}.json"
    return measure_all(bench, cases, None if options.short else results_files.RESULTS / name)


if __name__ == "__main__":
    sys.exit(main())
