"""Defaults that depend on the data, or on the run that is resumed."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

import run
from library.dataset.splits import read_splits
from library.saving.checkpoints import Checkpoints
from project import assembly
from project.data_defaults import (
    choose_batch_size,
    choose_head_learning_rate,
    log_if_pretrained_is_better,
    resume_features,
)
from project.settings import read_settings
from tests.helpers.hub_modules import save_module


@pytest.fixture
def read(options, tmp_path):
    """A function of more arguments that returns settings; its keywords go into a checkpoint."""

    *words, no_report = options
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    del pairs["--batch_size"]

    def read(*arguments, **stored):
        if stored:
            folder = tmp_path / "run" / "checkpoints" / "step_0000000005"
            folder.mkdir(parents=True)
            (folder / "state.json").write_text(json.dumps({"settings": stored}))
        given = pairs | dict(each.split("=", 1) for each in arguments)
        return read_settings([no_report, *(f"{name}={value}" for name, value in given.items())])

    return read


def split_of(*class_counts):
    return SimpleNamespace(examples=sum(class_counts), class_counts=class_counts)


@pytest.mark.parametrize(
    ("examples", "replicas", "size"),
    [
        (481, 1, 32),
        (480, 1, 16),
        (240, 1, 8),
        (3, 1, 4),
        # Shares are equal and even.
        (481, 3, 30),
        (240, 3, 6),
        (240, 8, 16),
    ],
)
def test_batch_size_leaves_steps_per_epoch(read, examples, replicas, size):
    config = choose_batch_size(read(), split_of(examples), replicas).project
    assert (config.train_batch_size, config.eval_batch_size) == (size, 32)


def test_batch_size_of_oversampled_images(read):
    settings = read("--balance=oversample")
    assert choose_batch_size(settings, split_of(400, 4)).project.train_batch_size == 32


def test_batch_size_that_is_named_is_obeyed(read):
    settings = read("--batch_size=64")
    assert choose_batch_size(settings, split_of(20)) is settings
    assert choose_batch_size(read("--train_batch_size=10"), split_of(20)).project == (
        read("--train_batch_size=10").project
    )


def test_batch_size_of_a_resumed_run(read):
    stored = {"batch_size": 20, "train_batch_size": 20, "eval_batch_size": 20}
    settings = choose_batch_size(read(**stored), split_of(20))
    assert settings.project.model_dump(include=set(stored)) == stored
    settings = choose_batch_size(read("--resume=never"), split_of(20))
    assert settings.project.train_batch_size == 4


@pytest.mark.parametrize(
    ("stored", "is_middle"),
    [({}, True), ({"model": "efficientnet_lite0"}, False), ({"middle_features": True}, True)],
)
def test_resumed_run_keeps_its_features(read, stored, is_middle):
    assert resume_features(read(**stored)).hyperparameters.middle_features == is_middle


@pytest.mark.parametrize(
    ("arguments", "stored", "has_new_head", "rate"),
    [
        ("--learning_rate=1e-5", {}, True, 1e-3),
        ("--learning_rate=1e-5", {}, False, None),
        ("--learning_rate=1e-2", {}, True, None),
        ("--learning_rate=1e-5 --head_learning_rate=1e-4", {}, False, 1e-4),
        ("--learning_rate=1e-5 --head_learning_rate=1e-4", {"learning_rate": 1e-5}, True, 1e-4),
        # Of an earlier version, which had one learning rate.
        ("--learning_rate=1e-5", {"learning_rate": 1e-5}, True, None),
        ("--learning_rate=1e-5", {"head_learning_rate": 0.25}, False, 0.25),
    ],
)
def test_learning_rate_of_the_head(read, arguments, stored, has_new_head, rate):
    settings = read(*arguments.split(), **stored)
    assert choose_head_learning_rate(settings, 1.0, has_new_head) == rate


def test_head_learning_rate_scales_with_the_batch(read):
    settings = read("--learning_rate=1e-5", "--head_learning_rate=1e-4")
    assert choose_head_learning_rate(settings, 2.0, True) == 2e-4
    # The least one is what it is.
    assert choose_head_learning_rate(read("--learning_rate=1e-5"), 2.0, True) == 1e-3


@pytest.mark.slow
def test_new_head_of_a_fine_tuned_module_learns_faster(read, capsys, tmp_path):
    """Both rates are in the summary, in history.csv and in the run's settings, and resume."""
    save_module(tmp_path / "module")
    words = ["--model=hub", f"--hub_handle={tmp_path}/module", "--image_size=6"]
    words += ["--fine_tuning=true", "--learning_rate=1e-5", "--learning_rate_decay_type=fixed"]
    settings = read(*words)
    given = [f"--{name}={settings.values[name].value}" for name in ("data_dir", "run_dir")]

    def train(epochs):
        run.main([*given, *words, "--no-report", f"--train_epochs={epochs}", "--dropout_rate=0"])
        variables = Checkpoints(tmp_path / "run" / "checkpoints", 1).find_latest()
        with np.load(variables / "variables.npz") as file:
            return [file[name] for name in sorted(file.files)]

    train(1)
    log = capsys.readouterr().err
    assert "batch size 4 instead of 32" in log
    assert "learning rate 1e-05, 0.001 for the head" in log
    resumed = train(2)
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["head_learning_rate"]) for row in rows] == pytest.approx([1e-3] * 2)
    recorded = (tmp_path / "run" / "hyperparameters.yaml").read_text()
    assert "head_learning_rate: 0.001 " in recorded
    (tmp_path / "run").rename(tmp_path / "first")
    assert all(map(np.array_equal, resumed, train(2)))


def test_head_factor_reaches_the_optimizer(read, colors, tmp_path):
    save_module(tmp_path / "module")
    words = [
        "--model=hub",
        f"--hub_handle={tmp_path}/module",
        "--image_size=6",
        "--fine_tuning=true",
    ]
    settings = read(*words, "--learning_rate=1e-4", "--layer_rate_decay=0.5")
    parts = assembly.make_parts(settings, read_splits(colors, "train")[0], 4)
    factors = parts.optimizer.rate_factors
    by_name = {
        each.path.split("/")[0]: factors[parts.optimizer._var_key(each)]
        for each in parts.network.trainable_variables
    }
    assert by_name == pytest.approx({"block_1_kernel": 0.5, "embedding": 10, "scores": 10})
    assert parts.learning_rates() == pytest.approx(
        {"learning_rate": 1e-4, "head_learning_rate": 1e-3}
    )


@pytest.mark.parametrize(
    ("arguments", "images", "is_logged"),
    [
        ("--model=simple", 499, True),
        ("--model=simple", 500, False),
        ("--model=efficientnet_lite0", 20, False),
        ("--model=application", 20, False),
        ("--model=application --application_weights=none", 20, True),
        ("--model=simple --checkpoint_path=best", 20, False),
    ],
)
def test_pretrained_is_recommended_for_few_images(read, capsys, arguments, images, is_logged):
    split = SimpleNamespace(examples=2 * images, classes=("a", "b"))
    log_if_pretrained_is_better(read(*arguments.split()), split)
    assert ("--config_set transfer" in capsys.readouterr().err) is is_logged
