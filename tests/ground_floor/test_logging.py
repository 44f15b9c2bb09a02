import logging

import pytest

from library.logging import set_chief

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
