"""Groups of runs of equal settings, and whether they differ by more than chance."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import run
from library.comparing.find_runs import data_warnings, run_folders, run_names
from library.comparing.groups import group_runs
from library.comparing.metrics import best_first, find_metric
from library.comparing.significance import Difference, compare_values, correct
from library.errors import DataError
from library.files import seal_folder
from library.messages import ChoiceError
from library.reporting.runs import Run, read_run

SETTINGS = (
    "default:\n  learning_rate: {rate}  # x\n  random_seed: {seed}  # x\n  fold: {fold}  # x\n"
)


def write_run(folder, accuracy, rate=0.1, seed=0, fold="null", **validation):
    best = folder / "best"
    best.mkdir(parents=True)
    metrics = {"epoch": 2, "step": 8, "monitored": "validation loss", "value": 0.25}
    metrics["validation"] = {"loss": 1 - accuracy, "accuracy": accuracy, **validation}
    (best / "metrics.json").write_text(json.dumps(metrics))
    (best / "project.yaml").write_text(SETTINGS.format(rate=rate, seed=seed, fold=fold))
    seal_folder(best)
    rows = f"epoch,validation_loss,validation_accuracy\n1,0.9,0.1\n2,{1 - accuracy},{accuracy}\n"
    (folder / "history.csv").write_text(rows)
    return folder


GOOD, BAD = [0.90, 0.92, 0.91, 0.93], [0.80, 0.84, 0.79, 0.85]


@pytest.fixture
def experiments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("project.yaml", "hyperparameters.yaml"):
        Path(name).write_text("default:\n", encoding="utf-8")
    for seed, (good, bad) in enumerate(zip(GOOD, BAD, strict=True)):
        write_run(Path(f"out/good/seed_{seed}"), good, seed=seed)
        write_run(Path(f"out/bad/seed_{seed}"), bad, rate=0.2, seed=seed)
    # The best, and perhaps by chance.
    write_run(Path("out/one"), 0.97, rate=0.3)
    return Path("out")


def test_paired_difference_is_scipys():
    values, best = ({seed: each[seed] for seed in range(4)} for each in (BAD, GOOD))
    found, wanted = compare_values(values, best), stats.ttest_rel(BAD, GOOD)
    assert (found.method, found.is_more_than_chance) == ("paired", True)
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.interval == pytest.approx(wanted.confidence_interval())
    # Of the seeds that both have.
    more = {**best, 9: 0.1}
    assert compare_values(values, more) == found


def test_difference_without_shared_seeds_is_welchs():
    values, best = dict(enumerate(BAD)), dict(enumerate(GOOD[:3], 3))
    found, wanted = compare_values(values, best), stats.ttest_ind(BAD, GOOD[:3], equal_var=False)
    assert found.method == "Welch"
    assert found.value == pytest.approx(np.mean(BAD) - np.mean(GOOD[:3]))
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.interval == pytest.approx(wanted.confidence_interval())


def test_folds_share_images():
    values, best = ({seed: each[seed] for seed in range(4)} for each in (BAD, GOOD))
    differences = np.subtract(BAD, GOOD)
    t = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 4 + 1 / 3))
    assert compare_values(values, best, 4).p_value == pytest.approx(2 * stats.t.sf(abs(t), 3))


def test_chance_is_unknown_of_one_run_and_without_variation():
    assert compare_values({0: 0.5}, {0: 0.75}) == Difference(-0.25)
    assert compare_values({0: 0.5, 1: 0.5}, {2: 0.75, 3: 0.75}).is_more_than_chance is None
    assert compare_values({0: 0.5, 1: 0.25}, {0: 0.75, 1: 0.5}).is_more_than_chance is None
    assert compare_values({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25}).is_more_than_chance is False


def test_holm_correction():
    p_values = [0.01, None, 0.04, 0.03, 0.6]
    corrected = correct([Difference(0, p_value=each) for each in p_values])
    # As R's p.adjust(c(0.01, 0.04, 0.03, 0.6), "holm") returns them.
    assert [each.p_value for each in corrected] == [
        pytest.approx(0.04),
        None,
        pytest.approx(0.09),
        pytest.approx(0.09),
        pytest.approx(0.6),
    ]


def test_runs_of_experiments_are_found(experiments):
    for name in ("out/search/trials/0007/seed_0", "out/search/trials/0010", "out/cv/fold_1"):
        write_run(Path(name), 0.5)
    Path("out/good/cache/features").mkdir(parents=True)
    found = {
        each.as_posix() for name in ("search", "cv") for each in run_folders(Path("out", name))
    }
    assert found == {"out/search/trials/0007/seed_0", "out/search/trials/0010", "out/cv/fold_1"}
    assert run_folders(Path("out/good")) == [Path(f"out/good/seed_{seed}") for seed in range(4)]
    assert run_folders(Path("out/one")) == [Path("out/one")]
    assert run_folders(Path("out/none")) == [Path("out/none")]


def test_groups_have_equal_settings_but_for_the_seed(experiments):
    names = ("good/seed_0", "bad/seed_1", "good/seed_3", "one")
    runs = [read_run(experiments / name) for name in names]
    groups = group_runs(runs, lambda name, values: True)
    assert [(each.name, each.size) for each in groups] == [
        ("good", "2 seeds"),
        ("bad/seed_1", "1 seed"),
        ("one", "1 seed"),
    ]
    # Another run of a seed is no further one.
    twice = replace(runs[0], folder=Path("out/again"))
    (group,) = group_runs([runs[0], twice], lambda name, values: True)
    assert (group.name, len(group.values("accuracy"))) == ("good/seed_0 and 1 more", 1)
    other_data = replace(runs[2], training_data="2")
    assert len(group_runs([runs[0], other_data], lambda name, values: True)) == 2


def test_folds_are_one_group(tmp_path):
    runs = [
        replace(read_run(write_run(tmp_path / f"fold_{n}", 0.5 + n / 10, fold=n)), training_data=n)
        for n in (1, 2, 3)
    ]
    (group,) = group_runs(runs, lambda name, values: True)
    assert (group.name, group.size, group.folds) == (tmp_path.name, "3 folds", 3)
    assert data_warnings(runs) == []
    assert "different" in data_warnings([*runs, replace(runs[0], training_data="other")])[0]


def test_command_says_what_is_more_than_chance(experiments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    run.main(["compare", "out/good", "out/bad", "out/one"])
    out, _ = capsys.readouterr()
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "4 seeds" in rows["good"]
    assert rows["bad"].endswith("yes")
    assert rows["one"].endswith("unknown")
    assert "paired t test" in out
    assert rows["learning_rate"].split() == ["learning_rate", "0.3", "0.1", "0.2"]
    page = Path("out/compare.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "<td>yes</td>" in page
    assert "| bad | 4 seeds |" in Path("out/summary.md").read_text(encoding="utf-8")


def test_formats(experiments, capsys):
    words = ["compare", "out/bad", "out/good", "out/one"]
    run.main([*words, "--format", "json", "--sort_by", "Validation_Loss"])
    found = json.loads(capsys.readouterr().out)
    assert found["sorted_by"] == "loss"
    assert [each["group"] for each in found["groups"]] == ["one", "good", "bad"]
    _, first, second = found["groups"]
    assert first["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(GOOD))
    assert first["difference"] is None
    assert second["difference"]["p_value"] == pytest.approx(stats.ttest_rel(BAD, GOOD).pvalue)
    run.main([*words, "--format", "csv"])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [float(row["accuracy"]) for row in rows] == sorted([*GOOD, *BAD, 0.97], reverse=True)
    assert {row["group"] for row in rows} == {"good", "bad", "one"}
    assert rows[0]["learning_rate"] == "0.3"
    run.main([*words, "--format", "md"])
    assert capsys.readouterr().out == Path("out/summary.md").read_text(encoding="utf-8")


def test_sorting_by_any_metric(experiments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    for name, accuracy, f1 in (("low", 0.9, 0.2), ("high", 0.8, 0.4)):
        write_run(Path("out") / name, accuracy, rate=name, macro_f1=f1)
    words = ["compare", "out/low", "out/high", "out/one"]
    runs = [read_run(each) for each in words[1:]]
    for metric, first in (("macro_f1", "high"), ("Validation accuracy", "one"), ("epoch", "one")):
        assert best_first(runs, find_metric(metric, runs))[0].folder.name == first
    run.main([*words, "--sort_by", "macro f1"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert "macro_f1" in head
    assert [line.split()[0] for line in rows[:3]] == ["high", "low", "one"]
    with pytest.raises(ChoiceError, match="did you mean 'macro_f1'"):
        run.main([*words, "--sort_by", "macro_f2"])


def test_run_names():
    run = Run(Path("out/a/seed_0"), {}, [], {}, None, None, None)
    runs = [run, replace(run, folder=Path("out/b"))]
    assert run_names(runs) == ["a/seed_0", "b"]
    assert run_names(runs[:1]) == ["seed_0"]
    apart = [replace(run, folder=Path(each)) for each in ("/x/a", "/y/b")]
    assert run_names(apart) == ["/x/a", "/y/b"]


def test_no_runs_in_an_experiment(tmp_path):
    (tmp_path / "seed_0").mkdir()
    with pytest.raises(DataError, match="no run to compare"):
        run.main(["compare", str(tmp_path)])
