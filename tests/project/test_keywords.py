import pytest

from project.keywords import keywords_of


def test_a_function_gets_what_it_names():
    def network(shape, classes, *, depth, dropout_rate=0.5):
        return depth, dropout_rate

    assert keywords_of(network, {"depth": 3, "dropout_rate": 0.1, "other": 1}) == {
        "depth": 3,
        "dropout_rate": 0.1,
    }


def test_a_hyperparameter_that_is_no_setting_is_a_mistake_of_the_program():
    def network(*, dept):
        return dept

    with pytest.raises(KeyError, match="dept"):
        keywords_of(network, {"depth": 3})
