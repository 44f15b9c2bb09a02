"""The list of cases, results files, and the README's figures."""

import ast
import string
from pathlib import Path

import pytest

from benchmarks import results as results_files
from benchmarks.cases import OURS, read_cases, read_data
from benchmarks.pairs import Run
from benchmarks.programs import ROOT


def functions_of(contender):
    module, name = contender.function.split(":")
    tree = ast.parse(Path(ROOT, *module.split(".")).with_suffix(".py").read_text())
    return {each.name: each.args for each in tree.body if isinstance(each, ast.FunctionDef)}[name]


def test_cases_name_functions_with_their_arguments():
    writers, numbers = read_data(short=False)
    contenders = [
        x for case in read_cases() for x in (case.ours, *(p.contender for p in case.peers))
    ]
    for each in [*contenders, *writers.values()]:
        given, expected = len(each.arguments), functions_of(each)
        given += each in writers.values()  # the folder to write
        names = len(expected.args)
        assert expected.vararg or names - len(expected.defaults) <= given <= names, each
        fields = {field for x in each.arguments for _, field, *_ in string.Formatter().parse(x)}
        assert fields <= {None, "sources", *writers, *numbers}, each


def test_peers_environment_is_for_modules_without_tensorflow():
    for case in read_cases():
        for contender in (case.ours, *(each.contender for each in case.peers)):
            is_peers = contender.function.split(":")[0].endswith("_peers")
            assert contender.in_peers == is_peers, contender


def test_published_results_name_known_cases():
    found = results_files.published_results() or {"cases": {}}
    known = {case.key: {OURS, *(x.contender.name for x in case.peers)} for case in read_cases()}
    for key, contenders in found["cases"].items():
        assert contenders.keys() <= known[key]
        assert all(Run(**run).seconds > 0 for runs in contenders.values() for run in runs)


def test_readme_has_figures_of_published_results():
    page = results_files.README.read_text(encoding="utf-8")
    shown = page.partition(results_files.BEGIN)[2].partition(results_files.END)[0]
    assert shown == results_files.readme_block(results_files.published_results())


@pytest.fixture
def results():
    case = read_cases()[0]
    run = {"seconds": 1.0, "cpu_seconds": 2.0, "load": 1.0, "other_cores": 0.0}
    peer = case.peers[0]
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "machine": {"processor": "a processor", "cores": 2, "memory_gigabytes": 8},
        "cases": {
            case.key: {
                OURS: [run] * 6,
                peer.contender.name: [run | {"seconds": 1.0 + peer.goal / 2}] * 6,
            }
        },
    }


def test_table_shows_ratios_and_goals(results):
    table = results_files.format_table(results)
    peer = read_cases()[0].peers[0]
    assert f"{1 + peer.goal / 2:.2f}" in table
    assert f"goal {peer.goal:g} reached" in table
    assert "not quiet" not in table
    assert f"| {peer.contender.name} | {1 + peer.goal / 2:.2f} |" in results_files.readme_block(
        results
    )


def test_busy_machine_is_named(results):
    for contenders in results["cases"].values():
        for runs in contenders.values():
            runs[:] = [run | {"other_cores": 0.7} for run in runs]
    assert "not quiet: other processes used 0.7 cores" in results_files.readme_block(results)
