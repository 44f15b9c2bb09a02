import pytest

from tests.fuzz.fuzz import fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_target_survives_a_second(name):
    assert fuzz(name, 1) > 0
