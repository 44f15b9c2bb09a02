"""A profile of a small training, one stage of which is made slow."""

import dataclasses
import json
import time
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

import run
from library.augmentation.pipeline import Augmentation, Augmentations
from library.dataset.splits import read_splits
from library.errors import run_main
from library.inputs.decoding import ImageFormat
from library.inputs.examples import ShardSource, make_source
from library.models.blocks import BASE
from library.models.features import CachedFeatures, FeatureCache, cache_split_features
from library.models.features import split_at_base as split
from library.profiling import training_profile
from library.profiling.bottleneck import find_bottleneck
from library.profiling.stage_clock import StageClock, process_age
from library.profiling.training_profile import Budget, profile_training
from library.training.parts import RunInputs
from project.commands import profile
from project.inputs import EvaluationPipeline, TrainingPipeline
from tests.helpers import small_run

FORMAT = ImageFormat(8, 3)
BUDGET = Budget(0.3, 0.1, 0.1, 0.1, 0.1)
# Seconds per image, or per step, by what is slow now; and seconds of each save.
SLOW = {"read": 0.03, "decode": 0.03, "augment": 0.03, "step": 0.1, "evaluate": 0.2}
SAVING = 0.2
delays: dict[str, float] = {}


def delayed(stage, value):
    """Return a tensor after the delay of a stage."""
    wait = tf.numpy_function(lambda: np.float32(time.sleep(delays.get(stage, 0)) or 0), [], "float")
    with tf.control_dependencies([wait]):
        return tf.identity(value)


class SlowSource(ShardSource):
    stages = ("read", "decode")

    def record(self, key):
        return delayed(self.stages[0], key)

    def load(self, key, image_format, crop=None):
        return super().load(delayed(self.stages[1], key), image_format, crop)


class SlowValidation(SlowSource):
    stages = ("", "evaluate")


class SlowLayer(keras.layers.Layer):
    def call(self, x, training=False):
        return x + tf.stop_gradient(delayed("step", 0.0)) if training else x


def make_network():
    pixels = keras.Input((8, 8, 3))
    x = SlowLayer()(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def slow_source(kind, split):
    source = make_source(split)
    values = {each.name: getattr(source, each.name) for each in dataclasses.fields(source)}
    return kind(**{name: values[name] for name in values if name not in ("count", "_checked")})


@pytest.fixture(scope="module")
def inputs(colors):
    train, validation = read_splits(colors, "train", "validation")
    augment = Augmentation(lambda image, strength, seed: delayed("augment", image), 1.0, 1.0)
    training = TrainingPipeline(
        slow_source(SlowSource, train),
        FORMAT,
        16,
        shuffle_examples=60,
        seed=0,
        augmentations=Augmentations(["slow"], {"slow": augment}),
    )
    return RunInputs(
        training, EvaluationPipeline(slow_source(SlowValidation, validation), FORMAT, 16)
    )


def make_trainer(folder, inputs, **options):
    plan = {"train_epochs": 10_000, "steps_between_evals": 20, "steps_per_execution": 2}
    names = ("blue", "green", "red")
    return small_run.make_run(folder, *inputs, classes=names, **{**plan, **options})


@pytest.fixture(scope="module")
def trainer(inputs, tmp_path_factory):
    return make_trainer(tmp_path_factory.mktemp("profile"), inputs, network=make_network)


@pytest.mark.parametrize("stage", SLOW)
def test_slow_stage_is_the_bottleneck(trainer, stage, monkeypatch):
    monkeypatch.setitem(delays, stage, SLOW[stage])
    write = training_profile.write_snapshot
    slowly = lambda *all_of: time.sleep(SAVING) or write(*all_of)  # noqa: E731
    monkeypatch.setattr(training_profile, "write_snapshot", slowly)
    clock = StageClock()
    found = profile_training(trainer, clock, BUDGET)
    assert find_bottleneck(found.planned_seconds) == stage
    assert sum(found.seconds.values()) == pytest.approx(clock.total(), rel=0.01)
    assert found.seconds["save"] > SAVING


def test_cached_features_are_not_cached(inputs, tmp_path):
    base = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()], name=BASE)
    base.trainable = False
    pixels = keras.Input((8, 8, 3))
    network = keras.Model(pixels, keras.layers.Dense(3)(base(pixels)))
    run = make_trainer(tmp_path, inputs, network=lambda: network)
    cache = FeatureCache(split(network)[0], tmp_path / "cache")
    make = partial(cache_split_features, inputs=inputs, fingerprints=("t", "v"), views=[(0,), (1,)])
    cached = CachedFeatures(split(network)[1], cache, make)
    parts = dataclasses.replace(run.parts, cached_features=cached)
    run = type(run)(parts, inputs, run.plan, run.paths, listeners=())
    found = profile_training(run, StageClock(), BUDGET)
    assert not (tmp_path / "cache").exists()
    # Two views of 60 images, and 18 to validate on.
    per_image = found.planned_seconds["cache features"] / 138
    assert 0 < per_image < found.seconds["cache features"]
    assert list(found.input_costs) == ["read"]


def test_process_age(tmp_path):
    assert 0 < process_age() < 24 * 3600
    assert process_age(tmp_path / "none") > 0


def test_profile_command(options, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(training_profile, "Budget", lambda: BUDGET)
    monkeypatch.setattr(profile, "_AUGMENTATION_SECONDS", 0.05)
    more = ["--augmentations=flip,contrast", "--max_minutes=1"]
    assert run_main(run.main, ["profile", *options, *more, "--format=json"], "run.py") == 0
    found = json.loads(capsys.readouterr().out)
    for shares in (found["shares"], found["planned_shares"]):
        assert sum(shares.values()) == pytest.approx(1)
    assert found["seconds"]["trace"] > 0
    assert found["plan"]["steps"] == 16
    assert found["advice"]
    assert [each.name for each in tmp_path.iterdir()] == []


def test_profile_command_with_bad_input(options, tmp_path, capsys):
    assert run_main(run.main, ["profile", *options, "--format=md"], "run.py") == 2
    options[1] = str(tmp_path / "none")
    assert run_main(run.main, ["profile", *options], "run.py") == 3
    assert "Traceback" not in capsys.readouterr().err
