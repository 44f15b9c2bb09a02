import pytest

from project.keywords import keywords_of


def test_keywords_of():
    def network(shape, classes, *, depth, dropout_rate=0.5):
        return depth, dropout_rate

    assert keywords_of(network, {"depth": 3, "dropout_rate": 0.1, "other": 1}) == {
        "depth": 3,
        "dropout_rate": 0.1,
    }


def test_unknown_hyperparameter_is_an_error():
    def network(*, dept):
        return dept

    with pytest.raises(KeyError, match="dept"):
        keywords_of(network, {"depth": 3})
