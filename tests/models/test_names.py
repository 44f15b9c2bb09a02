import pytest

from library.models.saved_model import unique_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["b", "a"], ["b", "a"]),
        (["a", "b", "a", "a"], ["a", "b", "a_1", "a_2"]),
        # A name that a maker gave is not taken from it, wherever it comes.
        (["a", "a", "a_1"], ["a", "a_2", "a_1"]),
        (["a_1", "a", "a", "a_1"], ["a_1", "a", "a_2", "a_1_1"]),
    ],
)
def test_no_two_names_are_equal_and_the_first_keeps_its_own(names, expected):
    assert unique_names(names) == expected
