"""Ranges and choices in sets of hyperparameters.yaml."""

import pytest

import run
from library.configuration.schema import keys_of
from library.configuration.search_space import read_domain
from library.errors import SettingsError
from project.hyperparameters import Hyperparameters
from project.settings import read_settings

KEYS = {each.name: each for each in keys_of(Hyperparameters)}


def domain(name, value):
    return read_domain(KEYS[name], value, name)


def test_domain_of_each_form():
    rate = domain("learning_rate", {"log": [1e-4, 1]})
    assert (rate.low, rate.high, rate.is_log, rate.values()) == (1e-4, 1.0, True, None)
    assert domain("dropout_rate", [0, 0.5]) == domain("dropout_rate", [0, 0.5])
    assert isinstance(domain("dropout_rate", [0, 0.5]).low, float)
    assert domain("dropout_rate", {"range": [0.0, 0.3], "step": 0.1}).values() == pytest.approx(
        [0, 0.1, 0.2, 0.3]
    )
    assert domain("width", [3, 5]).values() == [3, 4, 5]
    assert domain("clip_norm", {"choices": ["none", 1]}).choices == (None, 1.0)
    assert domain("augmentations", {"choices": [["flip"], []]}).choices == (("flip",), ())
    assert domain("fine_tuning", {"choices": [True, False]}).first is True


def test_single_values_are_no_domains():
    assert domain("augmentations", ["flip"]) is None
    assert domain("class_weight", {"log": 2, "choices": 1}) is None
    assert domain("learning_rate", 0.1) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dropout_rate", [0.0, 1.5]),
        ("dropout_rate", [0.5, 0.1]),
        ("dropout_rate", [0.1, 0.2, 0.3]),
        ("dropout_rate", {"log": [0.0, 0.5]}),
        ("dropout_rate", {"lgo": [0.1, 0.5]}),
        ("dropout_rate", {"log": [0.1, 0.5], "range": [0.1, 0.5]}),
        ("dropout_rate", {"log": [0.1, 0.5], "step": 0.1}),
        ("dropout_rate", {"range": [0.1, 0.5], "step": True}),
        ("dropout_rate", {}),
        ("clip_norm", ["none", 2.0]),
        ("width", [1.5, 3]),
        ("width", {"range": [16, 50], "step": 16}),
        ("width", {"range": [16, 18], "step": 0.5}),
        ("optimizer", {"log": ["adam", "sgd"]}),
        ("optimizer", {"choices": ["adam", 3]}),
        ("optimizer", {"choices": ["adam", "adam"]}),
        ("optimizer", {"choices": []}),
        ("residual_layers", {"choices": [20, 21]}),
    ],
)
def test_domain_is_refused(name, value):
    with pytest.raises(SettingsError, match=name):
        domain(name, value)


@pytest.fixture
def spaces(tmp_path):
    path = tmp_path / "spaces.yaml"
    path.write_text(
        "base: &base\n  learning_rate: {log: [1e-4, 1e-2]}\n  width: [8, 16]\n"
        "child: &child\n  <<: *base\n  width: 8\nplain:\n  <<: *child\n  learning_rate: 1e-3\n"
    )
    return path


def settings_of(spaces, *words):
    return read_settings([*words, f"--hyperparameter_file={spaces}"], run.COMMANDS)


def test_space_inherits_and_options_fix_a_value(spaces):
    assert [*settings_of(spaces, "search", "--search_space=base").domains] == [
        "width",
        "learning_rate",
    ]
    child = settings_of(spaces, "search", "--search_space=child")
    assert [*child.domains] == ["learning_rate"]
    assert child.hyperparameters.learning_rate == 1e-4
    fixed = settings_of(spaces, "search", "--search_space=base", "--learning_rate=0.1")
    assert [*fixed.domains] == ["width"]
    assert not settings_of(spaces, "train", "--hyperparameter_set=plain").domains


def test_printed_space_can_be_searched_again(spaces, tmp_path):
    words = ["search", "--search_space=base", "--print_config"]
    (tmp_path / "again.yaml").write_text(settings_of(spaces, *words).answer)
    again = read_settings(["search", f"--config_file={tmp_path / 'again.yaml'}"], run.COMMANDS)
    assert again.domains == settings_of(spaces, "search", "--search_space=base").domains


def test_space_is_for_search_only(spaces):
    with pytest.raises(SettingsError, match=r"spaces.yaml:3 .*search"):
        settings_of(spaces, "train", "--hyperparameter_set=base")
    assert "[8, 16]" in settings_of(spaces, "--list_sets").answer


def test_wrong_end_is_reported_with_its_line(spaces):
    spaces.write_text(spaces.read_text().replace("[8, 16]", "[0, 16]"))
    with pytest.raises(SettingsError, match=r"width at .*spaces.yaml:3 \(set base\)"):
        settings_of(spaces, "train", "--hyperparameter_set=plain")
