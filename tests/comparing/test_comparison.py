"""Runs as their folders tell, and their comparison."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import run
from library.comparing.comparison import HEAD, Comparison
from library.comparing.find_runs import data_warnings
from library.comparing.groups import setting_rows
from library.comparing.metrics import best_first, find_metric
from library.comparing.output import format_text, render_comparison, write_comparison
from library.errors import DataError, UserError
from library.files import seal_folder
from library.reporting import runs as runs_module
from library.reporting.runs import read_history, read_run, read_runs, read_settings_file
from project.hyperparameters import is_in_effect
from tests.conftest import ROOT

SETTINGS = """default:

  # Schedule
  train_epochs: {epochs}     # command line
  learning_rate_steps: [a, "b # c"]  # hyperparameters.yaml:3 (set default)
"""


def write_run(folder, accuracy=0.9, epochs=3, test_epoch=2, **test):
    best = folder / "best"
    best.mkdir(parents=True)
    metrics = {"epoch": 2, "step": 8, "monitored": "validation loss", "value": 0.25}
    metrics["validation"] = {"loss": 0.25, "accuracy": accuracy}
    (best / "metrics.json").write_text(json.dumps(metrics))
    (best / "project.yaml").write_text(SETTINGS.format(epochs=epochs))
    seal_folder(best)
    rows = "epoch,images_per_second\n1,100\n2,300\n3,\n"
    (folder / "history.csv").write_text(rows)
    (folder / "checkpoints" / "step_0000000012").mkdir(parents=True)
    state = folder / "checkpoints" / "step_0000000012" / "state.json"
    state.write_text(json.dumps({"seconds": 3725.4}))
    (folder / "evaluation").mkdir()
    found = {"epoch": test_epoch, "accuracy": 0.8, "intervals": {"accuracy": [0.7, 0.9]}}
    content = json.dumps({**found, "parameters": 1234, **test})
    (folder / "evaluation" / "test.json").write_text(content)
    return folder


def comparison_of(runs, metric=None, skipped=()):
    """Compare runs, the best first."""
    metric = find_metric(metric, runs)
    return Comparison(best_first(runs, metric), metric, is_in_effect, skipped)


def test_runs_of_different_training_splits_are_named(tmp_path, caplog, monkeypatch):
    for name, fingerprint in (("a", "1"), ("b", "2"), ("c", "1"), ("old", None)):
        best = write_run(tmp_path / name) / "best"
        if fingerprint:
            (best / "data.json").write_text(json.dumps({"fingerprint": fingerprint}))
            seal_folder(best)
    runs = [read_run(tmp_path / name) for name in ("a", "b", "c", "old")]
    monkeypatch.chdir(tmp_path)
    assert data_warnings([runs[0], runs[2], runs[3]]) == []
    (line,) = data_warnings(runs)
    assert "2 different" in line
    assert "one: a, c; another: b" in line
    for template in ("comparison.html", "comparison.md"):
        assert "2 different training splits" in render_comparison(template, comparison_of(runs))
    run.main(["compare", *(str(each.folder) for each in runs)])
    assert line in caplog.messages


def test_read_run(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    assert run.best["value"] == 0.25
    assert run.settings == {"train_epochs": "3", "learning_rate_steps": '[a, "b # c"]'}
    assert (run.seconds, run.images_per_second, run.parameters) == (3725.4, 200, 1234)
    assert run.test == (0.8, (0.7, 0.9))
    assert read_run(write_run(tmp_path / "b", intervals={})).test == (0.8, None)


def test_read_run_ignores_evaluation_of_earlier_best(tmp_path):
    run = read_run(write_run(tmp_path / "a", test_epoch=1))
    assert run.test is run.parameters is None


WHOLE = {"images": 9, "images_in_split": 9, "views": 1, "members": [{}], "data": {"is_own": True}}


@pytest.mark.parametrize(
    ("changes", "is_taken"),
    [
        ({}, True),
        ({"images": 8}, False),
        ({"data": {"is_own": False}}, False),
        ({"views": 2}, False),
        ({"members": [{}, {}]}, False),
    ],
)
def test_read_run_takes_accuracy_of_whole_test_split_only(tmp_path, changes, is_taken):
    run = read_run(write_run(tmp_path / "a", **WHOLE | changes))
    assert (run.test is not None) == is_taken
    assert run.parameters == 1234


def test_read_run_without_optional_files(tmp_path):
    folder = write_run(tmp_path / "a")
    for name in ("history.csv", "checkpoints/step_0000000012/state.json", "evaluation/test.json"):
        (folder / name).unlink()
    run = read_run(folder)
    assert run.seconds is run.images_per_second is run.parameters is run.test is None


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("best/metrics.json", "{}", "metrics.json"),
        ("best/hashes.json", None, "hashes.json"),
        ("evaluation/test.json", "{", "JSONDecodeError"),
        ("evaluation/test.json", "[1]", "AttributeError"),
        ("evaluation/test.json", '{"epoch": 2}', "KeyError..accuracy"),
        ("evaluation/test.json", '{"epoch": 2, "accuracy": []}', "TypeError"),
    ],
)
def test_read_run_names_damage(tmp_path, name, content, text):
    folder = write_run(tmp_path / "a")
    (folder / name).write_text(content) if content else (folder / name).unlink()
    with pytest.raises(UserError, match=text):
        read_run(folder)


def test_read_run_while_best_is_replaced(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run")
    write_run(tmp_path / "next", accuracy=0.95)
    find_damage = runs_module.find_damage

    def replace_first(best):
        monkeypatch.setattr(runs_module, "find_damage", find_damage)
        (folder / "best").rename(folder / "best.previous")
        damage = find_damage(best)
        (tmp_path / "next" / "best").rename(folder / "best")
        return damage

    monkeypatch.setattr(runs_module, "find_damage", replace_first)
    assert read_run(folder).best["validation"]["accuracy"] == 0.95


def test_read_run_after_interrupted_replacement(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "best").rename(folder / "best.previous")
    assert read_run(folder).best["epoch"] == 2


def test_read_runs_skips_other_folders(tmp_path):
    (tmp_path / "half").mkdir()
    folders = [tmp_path / "none", tmp_path / "half", write_run(tmp_path / "a")]
    runs, skipped = read_runs(folders)
    assert [run.folder.name for run in runs] == ["a"]
    none, half = skipped
    assert f"{tmp_path}/none" in none
    assert f"{tmp_path}/half" in half


def test_read_history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,0.5\n2,\n")
    first, second = read_history(path)
    assert first == {"epoch": 1, "loss": 0.5}
    assert second["loss"] != second["loss"]
    assert read_history(None) == read_history(tmp_path / "none") == []


def test_read_settings_file(tmp_path):
    path = tmp_path / "project.yaml"
    path.write_text(SETTINGS.format(epochs=5))
    assert read_settings_file(path)[0] == ("train_epochs", "5", "command line")
    assert read_settings_file(tmp_path / "none") == []


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "out" / "a|<b>", 0.7)
    write_run(tmp_path / "out" / "c", 0.9, epochs=30, test_epoch=1)
    return comparison_of([read_run(f"out/{name}") for name in ("a|<b>", "c")]).runs


def test_format_comparison(runs):
    lines = [*format_text(comparison_of(runs), 120)]
    assert " ".join(lines[1].split()) == "c validation loss 0.2500 2 0.9000* - 1 h 02 min 200 -"
    assert "0.8000 (0.700 to 0.900)" in lines[2]
    assert "1,234" in lines[2]
    assert lines[-2].split() == ["setting", "c", "a|<b>"]
    assert lines[-1].split() == ["train_epochs", "30", "3"]


def test_format_comparison_fits_narrow_terminals(runs):
    wide, narrow = ([*format_text(comparison_of(runs), columns)] for columns in (120, 40))
    assert max(map(len, narrow)) <= 40 < max(map(len, wide))
    text = " ".join(" ".join(narrow).split())
    assert "c best validation loss 0.2500; epoch 2; accuracy 0.9000*;" in text


def test_best_first_breaks_ties_by_loss_and_puts_debug_runs_last(runs):
    def variant(run, name, accuracy, loss, **settings):
        best = {**run.best, "validation": {"accuracy": accuracy, "loss": loss}}
        return replace(run, folder=Path(name), best=best, settings=settings)

    run = runs[0]
    low, high = variant(run, "low", 0.9, 0.1), variant(run, "high", 0.9, 0.4)
    debug = variant(run, "debug", 1.0, 0.0, debug="true")
    ranked = comparison_of([debug, high, low])
    assert ranked.runs == [low, high, debug]
    # The debug run has the highest accuracy, but is no competitor.
    assert comparison_of([low, debug]).best_cells() == set()
    worse = variant(run, "worse", 0.8, 0.4)
    assert comparison_of([low, worse, debug]).best_cells() == {(0, HEAD.index("accuracy"))}
    assert ranked.result_rows()[-1][0] == "debug (debug)"


def test_best_first_by_the_metric_of_all_runs(runs):
    def variant(name, accuracy, value, mode="null", metric="macro_f1"):
        validation = {"accuracy": accuracy, "loss": 0.5, metric: value}
        best = {"monitored": f"validation {metric}", "value": value, "validation": validation}
        settings = {"best_metric_mode": mode}
        return replace(runs[0], folder=Path(name), best={**runs[0].best, **best}, settings=settings)

    one, other = variant("one", 0.9, 0.3), variant("other", 0.8, 0.4)
    assert comparison_of([one, other]).runs == [other, one]
    assert (0, HEAD.index("best")) in comparison_of([other, one]).best_cells()
    errors = [variant(each, 0.9, float(each), "min", "error") for each in "12"]
    assert [run.folder.name for run in comparison_of(errors[::-1]).runs] == ["1", "2"]
    # Different metrics can't be compared.
    one = replace(one, best={**one.best, "monitored": "validation loss"})
    assert comparison_of([other, one]).runs[0] == one


def test_settings_in_force(tmp_path):
    run = write_run(tmp_path / "a")
    lines = (
        "default:\n  batch_size: 64  # command line\n  run_dir: out/a  # default\n"
        "  train_batch_size: null  # default (= batch_size)\n"
        "  eval_batch_size: 32  # command line\n"
        "  model_dir: null  # default (= run_dir/checkpoints)\n  max_minutes: null  # default\n"
    )
    (run / "best" / "project.yaml").write_text(lines)
    seal_folder(run / "best")
    settings = read_run(run).settings
    assert settings["train_batch_size"] == "64"
    assert settings["eval_batch_size"] == "32"
    assert settings["model_dir"] == "out/a/checkpoints"
    assert settings["max_minutes"] == "null"


def test_setting_rows_leave_out_settings_of_other_models(runs):
    simple = replace(runs[0], settings={"model": "simple", "width": "32", "optimizer": "adam"})
    residual = {"model": "residual", "width": "64", "residual_layers": "20", "optimizer": "adam"}
    hub = replace(runs[0], settings=residual | {"residual_layers": "56", "model": "hub"})
    runs = [simple, replace(runs[0], settings=residual), hub]
    assert [row[0] for row in setting_rows(runs, is_in_effect)] == ["model"]
    wide = replace(simple, settings={**simple.settings, "width": "48"})
    assert ("width", "32", "-", "-", "48") in setting_rows([*runs, wide], is_in_effect)
    assert is_in_effect("end_learning_rate", {"learning_rate_decay_type": "cosine"})
    assert not is_in_effect("end_learning_rate", {"learning_rate_decay_type": "step"})
    assert not is_in_effect("adam_beta1", {"optimizer": "momentum"})
    assert is_in_effect("momentum", {"optimizer": "momentum"})


def test_page_links_reports_and_draws_curves(runs):
    (runs[0].folder / "report.html").write_text("")
    history = [
        {"epoch": epoch, "validation_loss": 0.5, "validation_accuracy": 0.5} for epoch in (1, 2)
    ]
    runs = [replace(run, history=history) for run in runs]
    page, _ = write_comparison("out", comparison_of(runs))
    text = page.read_text()
    assert text.count('href="c/report.html"') == text.count("/report.html") == 1
    assert text.count("<svg") == 2
    without = comparison_of([replace(runs[0], history=[])])
    assert "<svg" not in render_comparison("comparison.html", without)


def test_setting_rows_show_differences_only(runs):
    assert [row[0] for row in setting_rows(runs)] == ["train_epochs"]
    older = replace(runs[0], settings={"width": "64"})
    assert [row[0] for row in setting_rows([*runs, older])] == ["train_epochs"]
    assert setting_rows([runs[0], older]) == []
    assert [*format_text(comparison_of(runs[:1]), 80)][-1] == "no setting differs"
    assert "None." in render_comparison("comparison.html", comparison_of(runs[:1]))
    assert "Settings" not in render_comparison("comparison.md", comparison_of(runs[:1]))


def test_page_and_summary_hold_both_tables(runs):
    comparison = comparison_of(runs, skipped=["skipped: <x>"])
    page, summary = (
        render_comparison(template, comparison) for template in ("comparison.html", "comparison.md")
    )
    assert "a|&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>0.9000</b>", "")
    assert "skipped: &lt;x&gt;" in page
    assert "| train_epochs | 30 | 3 |" in summary
    assert "| a\\|<b> |" in summary
    assert summary.endswith(" |\n\n- skipped: <x>\n")
    assert "\n\n\n" not in summary
    written = [each.read_text() for each in write_comparison("out", comparison)]
    assert written == [page, summary]


def test_command_compares_runs(runs, capsys, tmp_path, monkeypatch):
    for name in ("project.yaml", "hyperparameters.yaml"):
        (tmp_path / name).write_text("default:\n")
    (tmp_path / "out" / "half").mkdir()
    monkeypatch.setenv("COLUMNS", "150")
    run.main(["compare", "out/c", "out/half", "out/a|<b>"])
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("c ")
    assert "skipped: out/half " in err
    assert "out/compare.html" in err
    assert "out/summary.md" in err

    # None named: all beside the run's own folder; and its own products are no runs.
    run.main(["compare", "--run_dir", "out/current"])
    again, err = capsys.readouterr()
    assert sorted(again.splitlines()[1:3]) == sorted(out.splitlines()[1:3])
    assert err.count("summary.md") == 1
    # As a shell expands out/*.
    run.main(["compare", *map(str, sorted(Path("out").iterdir()))])
    _, err = capsys.readouterr()
    assert err.count("skipped") == 1
    with pytest.raises(DataError, match="out/half"):
        run.main(["compare", "out/half"])
    with pytest.raises(DataError, match="nowhere"):
        run.main(["compare", "--run_dir", "nowhere/current"])


def test_command_needs_no_tensorflow(runs, tmp_path):
    check = (
        "import sys, run\n"
        f"run.main(['compare', {str(tmp_path / 'out' / 'c')!r}])\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
