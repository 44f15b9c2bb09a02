import re
import shutil

import pytest

from library.dataset.splits import read_splits
from library.errors import SettingsError
from library.evaluation.evaluate import EvaluationResult
from library.logging import start_logging
from library.saving.snapshots import read_snapshot
from project import load_network
from project.commands import evaluate
from project.settings import read_settings
from tests.conftest import convert, write_colors


@pytest.fixture
def settings(snapshot_run, monkeypatch):
    """A function of more arguments that gives the settings of a finished run."""
    from tests.conftest import ROOT

    monkeypatch.chdir(ROOT)

    def read(*arguments, **places):
        options = list(snapshot_run.options)
        for name, place in places.items():
            options[options.index(f"--{name}") + 1] = str(place)
        return read_settings([*options, *arguments])

    return read


def test_evaluation_file_names_differ(settings):
    whole = {"split": "test", "images": 9, "images_in_split": 9, "data": {"is_own": True}}

    def name(*arguments, data_dir="here/sample", **changes):
        config = settings(*arguments, data_dir=data_dir).project
        return evaluate.file_name(config, whole | changes)

    names = [
        name(),
        name("--tta", "2"),
        name(images=8),
        name(data={"is_own": False}),
        name(data_dir="elsewhere/sample", data={"is_own": False}),
        name("--checkpoint", "out/a/best"),
        name("--checkpoint", "out/b/best", "--tta", "2"),
        name("--ensemble", "out/a,out/b"),
        name("--best_model_dir", "elsewhere/best"),
        name("--ensemble", "out/a,out/c"),
    ]
    assert names[:3] == ["test", "test-tta2", "test-first8"]
    assert len({*names}) == len(names)
    hashed = r"-[0-9a-f]{6}"
    assert re.fullmatch(f"test-sample{hashed}", names[4])
    assert re.fullmatch(f"test-best{hashed}-tta2", names[6])
    assert re.fullmatch(f"test-ensemble{hashed}", names[7])
    assert name("--checkpoint", "./out/a/best") == names[5]


def test_is_own_data(settings, colors, tmp_path):
    (tmp_path / "link").symlink_to(colors)
    assert evaluate.is_own_data(settings().project)
    assert evaluate.is_own_data(settings(data_dir=tmp_path / "link").project)
    assert not evaluate.is_own_data(settings(data_dir=tmp_path).project)
    # A run directory without settings.
    assert evaluate.is_own_data(settings(data_dir=tmp_path, run_dir=tmp_path).project)


def test_checkpoint_and_ensemble_exclude_each_other(settings):
    with pytest.raises(SettingsError, match="checkpoint and ensemble"):
        load_network.read_chosen_snapshot(settings("--checkpoint", "a", "--ensemble", "b"))


def test_evaluate_and_fit_as_the_settings_say(settings, colors, snapshot_run):
    given = settings("--max_eval_steps=1", "--bootstrap_samples=0", "--threshold=0.6")
    snapshot = load_network.read_chosen_snapshot(given)
    assert snapshot.folder == snapshot_run.folder / "best"
    (split,) = read_splits(colors, "validation")
    inputs = load_network.make_inputs_for(snapshot, given, split)
    result = load_network.evaluate_snapshot(given, snapshot, inputs, None)
    assert isinstance(result, EvaluationResult)
    assert len(result.predictions) == 16  # of 18, a batch
    fitted = load_network.fit_to_validation(given, snapshot, None)
    assert (fitted.snapshot, fitted.temperature, fitted.threshold) == (snapshot, None, 0.6)
    # Calibrating leaves the threshold that was asked for.
    given = settings("--calibrate", "--threshold=0.6")
    assert load_network.fit_to_validation(given, snapshot, split).threshold == 0.6


def test_other_training_images_are_noticed(settings, colors, tmp_path, snapshot_run, capsys):
    def warned(data_dir, split="validation"):
        given = settings(data_dir=data_dir)
        (found,) = read_splits(data_dir, split)
        load_network.make_inputs_for(snapshot, given, found)
        return "learned" in capsys.readouterr().err

    snapshot = read_snapshot(snapshot_run.folder / "best")
    start_logging()
    assert not warned(colors)
    shutil.copytree(colors, tmp_path / "data")
    assert not warned(tmp_path / "data")
    # The images that it was evaluated on, and one more.
    write_colors(tmp_path / "images", 7, seed=1)
    convert(tmp_path / "images", tmp_path / "data", "train", "--overwrite")
    assert warned(tmp_path / "data")
    assert not warned(tmp_path / "data", "train")
    config = settings(data_dir=tmp_path / "data").project
    assert load_network.has_other_training_images(snapshot, config)
    shutil.rmtree(tmp_path / "data" / "train")
    assert not load_network.has_other_training_images(snapshot, config)
