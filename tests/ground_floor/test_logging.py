import logging
import sys

import pytest

from library.logging import progress_bar, set_chief

logger = logging.getLogger("library.test")


@pytest.fixture(autouse=True)
def chief():
    yield
    set_chief(True)


def test_levels_show_before_the_text(capsys):
    logger.debug("hidden")
    logger.info("one")
    logger.warning("two")
    logging.getLogger("project.test").error("three")
    assert capsys.readouterr() == ("", "one\nwarning: two\nerror: three\n")


def test_other_workers_log_errors_only(capsys):
    set_chief(False)
    logger.warning("one")
    logger.error("two")
    assert capsys.readouterr().err == "error: two\n"


@pytest.fixture
def _slow(monkeypatch):
    monkeypatch.setattr("library.logging._QUIET_SECONDS", 0)


@pytest.mark.usefixtures("_slow")
def test_progress_bar_logs_each_tenth_where_stderr_is_no_terminal(capsys):
    with progress_bar(200, "cats", unit=" images", mininterval=0) as bar:
        for _ in range(200):
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" %")[0] for line in lines] == [f"cats: {10 * n}" for n in range(1, 11)]
    assert all("200 images" in line and "\r" not in line for line in lines)


@pytest.mark.usefixtures("_slow")
def test_progress_bar_of_a_resumed_or_empty_task(capsys):
    with progress_bar(10, "cats", initial=10, unit=" images"):
        pass
    with progress_bar(0, "dogs", unit=" images"):
        pass
    assert [line[:11] for line in capsys.readouterr().err.splitlines()] == ["cats: 100 %"]


@pytest.mark.usefixtures("_slow")
def test_progress_bar_without_shares_logs_only_slow_work(capsys, monkeypatch):
    def advance():
        with progress_bar(4, "cats", has_shares=False, mininterval=0) as bar:
            for _ in range(4):
                bar.update(1)
        return capsys.readouterr().err.count("\n")

    assert advance() == 0
    monkeypatch.setattr("library.logging._SECONDS_BETWEEN_LINES", 0)
    assert advance() >= 4


def test_progress_bar_logs_no_quick_work(capsys):
    with progress_bar(10, "cats") as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_slow")
def test_progress_bar_logs_no_end_of_work_that_failed(capsys):
    bar = progress_bar(10, "cats")
    bar.n = 9
    bar.close()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_slow")
def test_progress_bar_iterates(capsys):
    assert [*progress_bar(3, "cats", iterable="abc", unit="")] == ["a", "b", "c"]
    assert "cats: 100 %" in capsys.readouterr().err


def test_progress_bar_at_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(3, "cats") as bar:
        bar.update(3)
    assert "\rcats: 100%|" in capsys.readouterr().err
