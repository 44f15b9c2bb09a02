import json
import os

import pytest

import run
from library.errors import run_main
from library.reporting.evaluation_files import is_current, warn_on_error


def test_a_failure_is_a_warning(capsys, tmp_path):
    with warn_on_error("the report"):
        raise OSError(28, "No space left on device", "x/report.html")
    with warn_on_error("the report"):
        raise ValueError("first line\nsecond")
    with warn_on_error("the report"):
        raise ZeroDivisionError
    assert capsys.readouterr().err.splitlines() == [
        "warning: the report could not be written (No space left on device: x/report.html)",
        "warning: the report could not be written (first line)",
        "warning: the report could not be written (ZeroDivisionError)",
    ]


def test_a_page_is_current_while_nothing_it_tells_of_is_newer(tmp_path):
    page, source = tmp_path / "page", tmp_path / "source"
    source.touch()
    assert not is_current(page, source)
    page.touch()
    os.utime(source, (1, 1))
    assert is_current(page, source, tmp_path / "none")
    os.utime(page, (0, 0))
    assert not is_current(page, source)


@pytest.mark.slow
def test_training_and_evaluating_leave_pages_and_measures(options, tmp_path, capsys):
    folder = tmp_path / "run"
    # In the way of the folder that the first evaluation wants.
    folder.mkdir()
    (folder / "evaluation").touch()
    assert run_main(run.main, options, "run.py") == 0
    assert "warning: " in (err := capsys.readouterr().err)
    assert "report.html could not be written" in err
    assert not (folder / "report.html").exists()

    (folder / "evaluation").unlink()
    assert run_main(run.main, options, "run.py") == 0
    assert "finished already" in capsys.readouterr().err
    page = (folder / "report.html").read_text()
    assert "100.0% right on validation" in page
    assert "--train_epochs" not in page
    assert "command line" in page
    assert json.loads((folder / "evaluation" / "validation.json").read_text())["images"] == 18
    written = (folder / "report.html").stat().st_mtime_ns

    assert run_main(run.main, options, "run.py") == 0
    assert (folder / "report.html").stat().st_mtime_ns == written, "nothing changed"
    assert run_main(run.main, ["evaluate", *options], "run.py") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((folder / "evaluation" / "test.json").read_text()) == printed
    page = (folder / "evaluation" / "test.html").read_text()
    assert "right on test" in page
    assert "<th>in train</th>" in page
    assert '<th scope="row">train</th><td>60</td><td>20 to 20</td><td>-</td>' in page


@pytest.fixture(autouse=True)
def _quiet_bootstrap(options):
    options.remove("--no-report")
    options += ["--bootstrap_samples", "20"]
