import pytest

from library.dataset.splits import read_splits
from library.errors import SettingsError
from library.evaluation.judging import Judgement
from project import stored_network
from project.settings import read_settings


@pytest.fixture
def settings(snapshot_run, monkeypatch):
    """A function of more arguments that gives the settings of a finished run."""
    from tests.conftest import ROOT

    monkeypatch.chdir(ROOT)
    return lambda *arguments: read_settings(["evaluate", *snapshot_run.options, *arguments])


def test_its_words_tell_it_from_the_best(settings):
    words = stored_network.words_of_network
    assert words(settings()) == []
    assert words(settings("--checkpoint", "out/a", "--tta", "2")) == ["a", "tta2"]
    assert words(settings("--ensemble", "out/a,out/b")) == ["ensemble"]


def test_a_checkpoint_and_an_ensemble_exclude_each_other(settings):
    with pytest.raises(SettingsError, match="checkpoint and ensemble exclude each other"):
        stored_network.read_network(settings("--checkpoint", "a", "--ensemble", "b"))


def test_it_is_judged_and_fitted_as_the_settings_say(settings, colours, snapshot_run):
    given = settings("--max_eval_steps=1", "--bootstrap_samples=0", "--threshold=0.6")
    snapshot = stored_network.read_network(given)
    assert snapshot.folder == snapshot_run.folder / "best"
    (split,) = read_splits(colours, "validation")
    inputs = stored_network.make_inputs_for(snapshot, given, split)
    judgement = stored_network.judge_network(given, snapshot, inputs, None)
    assert isinstance(judgement, Judgement)
    assert len(judgement.predictions) == 16  # of 18, a batch
    assert stored_network.fit_to_validation(given, snapshot, None) == (snapshot, None, 0.6)
    # Calibrating leaves the threshold that was asked for.
    given = settings("--calibrate", "--threshold=0.6")
    assert stored_network.fit_to_validation(given, snapshot, split).threshold == 0.6
