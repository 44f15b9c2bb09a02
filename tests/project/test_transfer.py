"""Transfer learning from the command line: settings → training → a snapshot that needs no more."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import run
from library.errors import CheckpointError, DataError, SettingsError
from library.models.hub_download import hash_module
from library.saving.checkpoints import Checkpoints
from library.saving.snapshots import read_snapshot
from tests.commands.test_run import damage_shard
from tests.helpers.hub_modules import save_module, save_tf1_module


@pytest.fixture
def module(tmp_path):
    save_module(tmp_path / "module")
    return str(tmp_path / "module")


@pytest.fixture
def train(options):
    """Run a command with the options of the fixture, some of them changed."""

    *words, no_report = options

    def call(command="train", **changes):
        given = dict(zip(words[::2], words[1::2], strict=True))
        given |= {f"--{name}": str(value) for name, value in changes.items()}
        run.main([command, no_report, *(f"{name}={value}" for name, value in given.items())])

    return call


@pytest.mark.slow
def test_frozen_tf1_module_resumes_exactly(capsys, train, tmp_path):
    save_tf1_module(tmp_path / "module")
    given = {"model": "hub", "hub_handle": tmp_path / "module", "image_size": 6}
    given["learning_rate_decay_type"] = "fixed"
    train(**given, train_epochs=2)
    assert json.loads(capsys.readouterr().out)["validation"]["accuracy"] > 0.5
    for epochs in (1, 2):
        train(**given, train_epochs=epochs, run_dir=tmp_path / "again")
    assert_same(latest_variables(tmp_path / "run"), latest_variables(tmp_path / "again"))


@pytest.mark.slow
def test_features_are_cached_until_the_base_is_trained(capsys, train, module, tmp_path):
    given = {"model": "hub", "hub_handle": module, "fine_tuning": "true", "unfreezing": "2=all"}
    given["learning_rate_decay_type"] = "fixed"
    train(**given, train_epochs=3)
    told = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert told.index("caching the base's features of 60 images") < (
        told.index("epoch 3: training the head and the top 1 of 1 blocks (3 layers)")
    )
    whole = latest_variables(tmp_path / "run")
    # Stopped on features, and at the change.
    for epochs in (1, 2, 3):
        train(**given, train_epochs=epochs, run_dir=tmp_path / "again")
    assert_same(whole, latest_variables(tmp_path / "again"))
    train(**given, train_epochs=3, run_dir=tmp_path / "images", cache_features="never")
    for variable, other in zip(whole, latest_variables(tmp_path / "images"), strict=True):
        assert np.allclose(variable, other, atol=1e-4)


@pytest.mark.slow
def test_unfreezing_resumes_in_the_stage_of_its_epoch(capsys, train, tmp_path):
    (tmp_path / "stages.yaml").write_text(
        "default:\n  unfreezing: [1=1, 2=all]\n  layer_rate_decay: 0.5\n"
        "  learning_rate_decay_type: fixed\n"
    )
    given = {"hyperparameter_file": tmp_path / "stages.yaml", "image_size": 16}
    train(**given, train_epochs=3)
    told = [line for line in capsys.readouterr().err.splitlines() if "training the head" in line]
    assert [each.partition(":")[0] for each in told] == ["epoch 1", "epoch 2", "epoch 3"]
    whole = latest_variables(tmp_path / "run")
    # Stopped in the second stage: resuming must not start with the first.
    for epochs in (2, 3):
        train(**given, train_epochs=epochs, run_dir=tmp_path / "again")
    assert_same(whole, latest_variables(tmp_path / "again"))


@pytest.mark.slow
def test_checkpoint_path_of_a_snapshot(capsys, train, tmp_path):
    train(train_epochs=1)
    best = tmp_path / "run" / "best"
    begin = {"checkpoint_path": best, "checkpoint_exclude_scopes": "scores", "freeze": "block1"}
    train(**begin, train_epochs=1, run_dir=tmp_path / "next")
    assert f"from {best}" in capsys.readouterr().err
    first, second = (read_snapshot(tmp_path / each / "best").network for each in ("run", "next"))
    for name, is_same in (("block1_convolution", True), ("scores", False)):
        kernels = [each.get_layer(name).kernel for each in (first, second)]
        assert np.array_equal(*kernels) == is_same
    # A run is resumed with its own weights.
    shutil.rmtree(tmp_path / "run")
    train(**begin, train_epochs=2, run_dir=tmp_path / "next")
    assert f"from {best}" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"checkpoint_path": "nothing"},
            CheckpointError,
            "checkpoint_path: nothing",
        ),
        ({"freeze": "blok1"}, SettingsError, "freeze: .*'blok1'"),
        (
            {"checkpoint_exclude_scopes": "scores"},
            SettingsError,
            "checkpoint_exclude_scopes .*checkpoint_path",
        ),
        ({"unfreezing": "soon"}, SettingsError, "unfreezing: 'soon'"),
    ],
)
def test_wrong_settings_are_refused_before_training(train, tmp_path, changes, error, words):
    with pytest.raises(error, match=words):
        train(**changes)
    assert not (tmp_path / "run" / "checkpoints").exists()


def latest_variables(folder):
    path = Checkpoints(folder / "checkpoints", 1).find_latest()
    with np.load(path / "variables.npz") as file:
        return [file[name] for name in sorted(file.files)]


def assert_same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("augmentations", ["", "flip,brightness=0.2"])
def test_cached_features_train_as_the_base_in_every_epoch(
    capsys, train, module, tmp_path, monkeypatch, augmentations
):
    given = {"model": "hub", "hub_handle": module, "image_size": 6, "train_epochs": 3}
    given["augmentations"] = augmentations
    if augmentations:
        given["cached_views"] = 3
    train(**given)
    said = capsys.readouterr().err
    views = 3 if augmentations else 1
    assert said.count("caching the base's features of 60 images") == views
    assert said.count("caching the base's features of 18 images") == 1
    train(**given, cache_features="never", run_dir=tmp_path / "never")
    assert "caching the base's features" not in capsys.readouterr().err
    ones, others = (latest_variables(tmp_path / each) for each in ("run", "never"))
    for one, other in zip(ones, others, strict=True):
        assert np.allclose(one, other, atol=1e-5)
    if augmentations:
        return
    # The snapshot is the whole network: it takes images, and needs neither module nor cache.
    shutil.rmtree(module)
    shutil.rmtree(tmp_path / "run" / "cache")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "no cache"))
    train("evaluate", image_size=6)
    assert json.loads(capsys.readouterr().out)["images"] == 18


@pytest.mark.slow
def test_cached_features_serve_later_runs(capsys, train, module, tmp_path):
    given = {"model": "hub", "hub_handle": module, "image_size": 6, "train_epochs": 1}
    given |= {"augmentations": "", "cache_dir": tmp_path / "cache"}
    train(**given)
    capsys.readouterr()
    train(**given, run_dir=tmp_path / "next", learning_rate=0.1)
    assert "caching the base's features" not in capsys.readouterr().err
    save_module(tmp_path / "other", seed=1)
    train(**{**given, "hub_handle": tmp_path / "other"}, run_dir=tmp_path / "third")
    assert "caching the base's features" in capsys.readouterr().err


@pytest.mark.slow
def test_cached_features_are_those_of_the_resumed_base(capsys, train, module, tmp_path):
    """Whatever base the settings name by then, the run resumes with its own."""
    given = {"model": "hub", "hub_handle": module, "image_size": 6, "augmentations": ""}
    train(**given, train_epochs=1)
    save_module(tmp_path / "other", seed=1)
    given |= {"hub_handle": tmp_path / "other", "train_epochs": 3, "cache_dir": tmp_path / "cache"}
    capsys.readouterr()
    train(**given)
    best = json.loads(capsys.readouterr().out)
    assert best["epoch"] > 1
    train("evaluate", image_size=6, split="validation")
    evaluated = json.loads(capsys.readouterr().out)
    assert np.isclose(best["validation"]["loss"], evaluated["loss"], atol=1e-5)


@pytest.mark.slow
def test_features_are_not_cached_if_they_change(capsys, train, module, tmp_path):
    given = {"model": "hub", "hub_handle": module, "image_size": 6, "train_epochs": 1}
    # The set of the same name fine-tunes whatever module it is given.
    given |= {"hyperparameter_set": "mobilenet", "augmentations": "", "run_dir": tmp_path / "tuned"}
    train(**given)
    assert "caching the base's features" not in capsys.readouterr().err


@pytest.mark.slow
def test_damaged_record_is_named_while_features_are_cached(train, module, colors, tmp_path):
    shutil.copytree(colors, tmp_path / "data")
    damage_shard(tmp_path / "data")
    given = {"model": "hub", "hub_handle": module, "image_size": 6, "augmentations": ""}
    with pytest.raises(DataError, match="record 0"):
        train(**given, data_dir=tmp_path / "data")


def test_describe_network_and_module(capsys, train, module, tmp_path):
    train("describe", model="hub", hub_handle=module, image_size=6)
    said = capsys.readouterr().out
    assert "base/block_1" in said
    assert "multiply-adds per image: 2,063" in said
    assert f"hub_sha256: {hash_module(Path(module))}" in said
    assert (tmp_path / "run" / "network.svg").read_text().startswith("<svg ")
