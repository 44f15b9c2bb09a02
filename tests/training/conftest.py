"""What several tests of the training compare with."""

import pytest

from tests.helpers.small_run import make_run


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """A finished run; read it, don't write into its folder."""
    run = make_run(tmp_path_factory.mktemp("uninterrupted"))
    run.fit()
    return run
