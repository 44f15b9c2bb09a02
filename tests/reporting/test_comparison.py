import subprocess
import sys
from dataclasses import replace

import pytest

import run
from library.errors import DataError
from library.reporting.comparison import (
    best_first,
    format_comparison,
    make_page,
    make_summary,
    setting_rows,
    write_comparison,
)
from library.reporting.runs import read_run
from tests.conftest import ROOT
from tests.reporting.test_runs import write_run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "out" / "a|<b>", 0.7)
    write_run(tmp_path / "out" / "c", 0.9, epochs=30, test_epoch=1)
    return best_first(read_run(f"out/{name}") for name in ("a|<b>", "c"))


def test_runs_side_by_side_the_best_first(runs):
    lines = [*format_comparison(runs)]
    assert " ".join(lines[1].split()) == "out/c validation loss 0.2500 2 0.9000 - 1 h 02 min 200 -"
    assert "0.8000 (0.700 to 0.900)" in lines[2]
    assert "1,234" in lines[2]
    assert lines[-2].split() == ["what", "differs", "out/c", "out/a|<b>"]
    assert lines[-1].split() == ["train_epochs", "30", "3"]


def test_only_what_differs_is_told(runs):
    assert [row[0] for row in setting_rows(runs)] == ["train_epochs"]
    older = replace(runs[0], settings={"width": "64"})
    assert [row[0] for row in setting_rows([*runs, older])] == ["train_epochs"]
    assert setting_rows([runs[0], older]) == []
    assert [*format_comparison(runs[:1])][-1] == "no setting differs"
    assert "Nothing." in make_page(runs[:1], [])


def test_the_page_and_the_summary_hold_both_tables_escaped(runs):
    page, summary = (make(runs, ["skipped: <x>"]) for make in (make_page, make_summary))
    assert "a|&lt;b&gt;" in page
    assert "<b>" not in page
    assert "skipped: &lt;x&gt;" in page
    assert "| train_epochs | 30 | 3 |" in summary
    assert "| out/a\\|<b> |" in summary
    assert summary.endswith("- skipped: <x>\n")
    assert [each.read_text() for each in write_comparison("out", runs, ["skipped: <x>"])] == [
        page,
        summary,
    ]


def test_the_command_compares_names_what_it_skips_and_says_where(runs, capsys, tmp_path):
    for name in ("project.yaml", "hyperparameters.yaml"):
        (tmp_path / name).write_text("default:\n")
    (tmp_path / "out" / "half").mkdir()
    run.main(["compare", "out/c", "out/half", "out/a|<b>"])
    out, err = capsys.readouterr()
    assert out.splitlines()[1].startswith("out/c ")
    assert "skipped: out/half has no best snapshot" in err
    assert "written: out/compare.html and out/summary.md" in err

    # None named: all beside the run's own folder; and its own products are no runs.
    run.main(["compare", "--run_dir", "out/current"])
    again, err = capsys.readouterr()
    assert sorted(again.splitlines()[1:3]) == sorted(out.splitlines()[1:3])
    assert "summary.md" not in err.split("written:")[0]
    with pytest.raises(DataError, match=r"no run to compare: out/half has no best snapshot"):
        run.main(["compare", "out/half"])
    with pytest.raises(DataError, match="no run to compare: none in nowhere"):
        run.main(["compare", "--run_dir", "nowhere/current"])


def test_comparing_needs_no_tensorflow(runs, tmp_path):
    check = (
        "import sys, run\n"
        f"run.main(['compare', {str(tmp_path / 'out' / 'c')!r}])\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
