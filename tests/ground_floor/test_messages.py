import pytest

from library.messages import ChoiceError, choose, nearest, unknown_name

KNOWN = {"residual": 1, "simple": 2, "mobilenet": 3}


def test_a_known_name_gives_its_value():
    assert choose("network", "simple", KNOWN) == 2


def test_an_unknown_name_names_the_nearest_and_all():
    with pytest.raises(ChoiceError) as caught:
        choose("network", "mobilnet", KNOWN)
    assert str(caught.value) == (
        "unknown network 'mobilnet'; did you mean 'mobilenet'? (known: mobilenet, residual, simple)"
    )
    assert caught.value.exit_code == 2


def test_nothing_near_gives_no_hint():
    assert nearest("xyz", KNOWN) is None
    assert unknown_name("set", "xyz", []) == "unknown set 'xyz' (known: none)"
