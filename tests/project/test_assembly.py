"""Settings reach the parts that they are meant for."""

import json
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import run
from library import limits
from library.dataset.splits import read_splits
from library.dataset.unconverted import read_generated, read_unconverted
from library.distributed.cluster import Cluster
from library.errors import CheckpointError, SettingsError
from library.inputs.worker_slice import WorkerSlice
from library.messages import ChoiceError
from library.models.scores import is_multi_label
from library.saving.snapshots import read_snapshot
from library.training.distribution import Devices
from library.training.listeners import Listener
from project import assembly, load_network
from project.settings import read_settings


@pytest.fixture
def make(options, colors):
    """A function of more arguments that gives (settings, training split, validation split)."""

    def make(*arguments):
        return read_settings([*options, *arguments]), *read_splits(colors, "train", "validation")

    yield make
    keras.mixed_precision.set_global_policy("float32")


def test_inputs_have_sizes_of_settings(make):
    settings, train, validation = make("--train_batch_size", "10", "--eval_batch_size", "7")
    training = assembly.make_training_inputs(settings, train)
    assert (training.examples, training.batches_per_epoch) == (60, 6)
    images, labels = next(iter(training.batches(0)))
    assert images.shape == (10, 8, 8, 3)
    assert labels.shape == (10,)
    evaluation = assembly.make_evaluation_inputs(settings, validation)
    assert [len(labels) for _, labels in evaluation.batches()] == [7, 7, 4]


def test_shuffle_buffer_is_bounded(make):
    settings, train, _ = make("--shuffle_examples", "40")
    training = assembly.make_training_inputs(settings, train)
    assert training.shuffle_examples == 40
    size = training.source.mean_bytes
    settings, train, _ = make("--shuffle_examples", "40", "--shuffle_bytes", str(7 * size))
    assert assembly.make_training_inputs(settings, train).shuffle_examples == 7
    large = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    (train,) = read_generated(lambda split: [(large, "a")] * 9, ["train"])
    settings, _, _ = make("--shuffle_bytes", "400000")
    training = assembly.make_training_inputs(settings, train)
    sizes = [len(each) for each in training.source.keys().as_numpy_iterator()]
    assert 3 <= training.shuffle_examples <= 400_000 // max(sizes)


def test_nondeterministic_order_is_a_warning(make, capsys):
    settings, train, _ = make()
    assert assembly.make_training_inputs(settings, train).options.deterministic
    assert "deterministic" not in capsys.readouterr().err
    settings, train, _ = make("--deterministic=false")
    assert not assembly.make_training_inputs(settings, train).options.deterministic
    assert "warning: deterministic false" in capsys.readouterr().err


def test_color_augmentations_of_gray_images_are_a_warning(make, capsys):
    augmentations = ["--augmentations", "flip,hue,brightness,saturation=0.3"]
    settings, train, _ = make(*augmentations)
    assembly.make_training_inputs(settings, train)
    assert "augmentations" not in capsys.readouterr().err
    settings, train, _ = make(*augmentations, "--channels=1")
    assembly.make_training_inputs(settings, train)
    log = capsys.readouterr().err
    assert log.startswith("warning: augmentations ")
    assert log.endswith(": hue, saturation=0.3\n")


def test_shard_by_file(make):
    settings, train, validation = make("--shard_by_file", "--balance", "oversample")
    with pytest.raises(SettingsError, match="balance oversample and shard_by_file"):
        assembly.make_training_inputs(settings, train, WorkerSlice(0, 2))
    assert assembly.make_training_inputs(settings, train).examples == 60
    settings, train, validation = make("--shard_by_file")
    assert (len(train.shards), len(validation.shards)) == (2, 1)
    training = [
        assembly.make_training_inputs(settings, train, WorkerSlice(each, 2)) for each in range(2)
    ]
    counts = [sum(len(labels) for _, labels in each.batches(0)) for each in training]
    assert counts == [each.examples for each in train.shards]
    # One shard can't be divided, so each worker reads it and takes its half of each batch.
    evaluation = [
        assembly.make_evaluation_inputs(settings, validation, worker_slice=WorkerSlice(each, 2))
        for each in range(2)
    ]
    assert [[len(labels) for _, labels in each.batches()] for each in evaluation] == [
        [8, 2],
        [8, 0],
    ]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_inputs(make, colors, tmp_path, kind):
    shutil.copytree(colors, tmp_path / "data")
    settings, *_ = make("--cache", kind, "--cache_dir", str(tmp_path / "cache"))
    train, validation = read_splits(tmp_path / "data", "train", "validation")
    training = assembly.make_training_inputs(settings, train)
    evaluation = assembly.make_evaluation_inputs(settings, validation)
    shutil.rmtree(tmp_path / "data")
    assert sum(len(labels) for _, labels in training.batches(0)) == 60
    assert sum(len(labels) for _, labels in evaluation.batches()) == 18
    assert (tmp_path / "cache").exists() is (kind == "disk")


@pytest.fixture(scope="module")
def unequal(tmp_path_factory):
    """A split that is not converted: 60 images of one class, 2 of another, 3 kB each."""
    folder = tmp_path_factory.mktemp("unequal")
    random = np.random.default_rng(0)
    for name, count in (("common", 60), ("rare", 2)):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{number:02d}.png")
    return read_unconverted(folder, ["train"], "folder")[0]


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_oversampled_copies_are_spread_over_the_epoch(make, unequal, cache):
    """Only keys of files and cached images are shuffled, as many for large images as for small."""
    settings, *_ = make("--balance=oversample", "--shuffle_bytes=32000", "--cache", cache)
    training = assembly.make_training_inputs(settings, unequal)
    assert training.examples == 120
    order = list(training.keys(0).as_numpy_iterator())
    for rare in np.flatnonzero(unequal.labels == 1):
        places = [place for place, number in enumerate(order) if number == rare]
        assert len(places) == 30
        assert places[0] < 20
        assert places[-1] > 100
    # The memory is bounded all the same, and without oversampling nothing changes.
    settings, *_ = make("--balance=oversample", "--shuffle_bytes=2560")
    assert assembly.make_training_inputs(settings, unequal).shuffle_examples == 10
    settings, *_ = make("--shuffle_bytes=32000")
    assert assembly.make_training_inputs(settings, unequal).shuffle_examples < 20


@pytest.mark.parametrize(
    ("given", "weights"),
    [("auto", (2, 1, 2 / 3)), ("{blue: 3, red: 0.5}", (3, 1, 0.5)), ("none", (1, 1, 1))],
)
def test_class_weights(make, tmp_path, given, weights):
    path = tmp_path / "h.yaml"
    path.write_text(f"default:\n  class_weight: {given}\n  xentropy_label_smoothing: 0\n")
    settings, train, _ = make(f"--hyperparameter_file={path}")
    train = replace(train, class_counts=(10, 20, 30))
    objective = assembly.make_parts(settings, train, 4).objective
    losses = objective.training_losses(np.arange(3), np.zeros((3, 3), "float32"))
    assert np.allclose(losses, np.log(3) * np.array(weights))


def test_loss_and_logit_adjustment(make):
    """The priors are those of the training images; a class without any counts as if it had one."""
    settings, train, _ = make("--loss=focal", "--focal_gamma=0", "--logit_adjustment=0.5")
    train = replace(train, class_counts=(30, 9, 0))
    objective = assembly.make_parts(settings, train, 4).objective
    losses = objective.training_losses(np.arange(3), np.zeros((3, 3), "float32"))
    shares = np.sqrt([30, 9, 1])
    assert np.allclose(losses, -np.log(shares / shares.sum()), atol=1e-6)
    for balanced in ("--class_weight=auto", "--balance=oversample"):
        settings, train, _ = make("--logit_adjustment=1", balanced)
        with pytest.raises(SettingsError, match="logit_adjustment"):
            assembly.make_objective(settings, train)


def test_balancing_twice_is_refused(make):
    settings, train, _ = make("--balance=oversample", "--class_weight=auto")
    with pytest.raises(SettingsError, match="class_weight auto and balance oversample"):
        assembly.make_training_inputs(settings, train)
    settings, train, _ = make("--balance=oversample", "--class_weight=red=2")
    assert assembly.make_training_inputs(settings, train).is_oversampled


def test_mixed_pairs_need_even_shares(make):
    settings, train, _ = make("--augmentations=mixup", "--train_batch_size=6")
    with pytest.raises(SettingsError, match="train_batch_size 6"):
        assembly.make_training_inputs(settings, train, WorkerSlice(0, 2))
    assert assembly.make_training_inputs(settings, train).batch_size == 6


def test_learning_rate_batch_size(make):
    settings, train, _ = make(
        "--learning_rate_batch_size", "64", "--learning_rate_decay_type=fixed"
    )
    parts = assembly.make_parts(settings, train, batches_per_epoch=4)
    assert float(parts.optimizer.learning_rate) == pytest.approx(0.01 * 16 / 64)


@pytest.mark.parametrize(
    ("dtype", "compute", "is_scaled"),
    [("float32", "float32", False), ("bfloat16", "bfloat16", False), ("float16", "float16", True)],
)
def test_dtype(make, dtype, compute, is_scaled):
    settings, train, _ = make("--dtype", dtype)
    parts = assembly.make_parts(settings, train, batches_per_epoch=4)
    convolution = parts.network.get_layer("block1_convolution")
    assert convolution.compute_dtype == compute
    assert convolution.kernel.dtype == "float32"
    assert parts.network(np.zeros((1, 8, 8, 3), "float32")).dtype == "float32"
    assert isinstance(parts.optimizer, keras.optimizers.LossScaleOptimizer) is is_scaled


def test_moving_average_decay(make):
    settings, train, _ = make()
    assert assembly.make_parts(settings, train, 4).ema is None
    settings, train, _ = make("--moving_average_decay", "0.99")
    assert assembly.make_parts(settings, train, 4).ema is not None


def test_plan(make):
    settings, _, _ = make("--max_train_steps", "5", "--best_metric=accuracy")
    plan = assembly.make_plan(settings)
    assert plan.total_steps(batches_per_epoch=100) == 5
    assert (plan.monitor.metric, plan.monitor.mode) == ("accuracy", "max")
    settings, _, _ = make("--weight_histograms", "--profile_steps", "10,20")
    plan = assembly.make_plan(settings)
    assert (plan.weight_histograms, plan.profile_steps) == (True, (10, 20))
    settings, _, _ = make("--best_metric=accuracy", "--best_metric_mode=min")
    with pytest.raises(SettingsError, match=r"mode min .*accuracy"):
        assembly.make_plan(settings)
    for name, meant in (("acuracy", "accuracy"), ("recall", "recall:<class>"), ("f1", "macro_f1")):
        settings, _, _ = make("--best_metric", name)
        with pytest.raises(ChoiceError, match=rf"best_metric '{name}'.*{meant}"):
            assembly.make_plan(settings)


def test_run_paths(make, tmp_path):
    settings, train, _ = make()
    paths = assembly.make_run_paths(settings, train)
    assert paths.checkpoints == tmp_path / "run" / "checkpoints"
    assert paths.best == tmp_path / "run" / "best"
    assert paths.texts.keys() == {"project.yaml", "hyperparameters.yaml", "data.json"}
    assert paths.settings["learning_rate"] == 0.01


@pytest.mark.parametrize(
    ("arguments", "is_frozen", "replicas", "is_cached"),
    [
        (["--augmentations=flip"], True, 1, True),
        (["--augmentations="], True, 1, True),
        (["--augmentations=flip,mixup"], True, 1, False),
        (["--augmentations=flip", "--cache_features=never"], True, 1, False),
        (["--augmentations=flip"], False, 1, False),
        (["--augmentations=flip"], True, 2, False),
    ],
)
def test_cached_features(make, arguments, is_frozen, replicas, is_cached, capsys):
    pixels = keras.Input((8, 8, 3))
    base = keras.layers.Dense(4, name="base", trainable=not is_frozen)
    features = base(keras.layers.Flatten()(pixels))
    network = keras.Model(pixels, keras.layers.Dense(3)(features))

    def cached(*more):
        settings, *splits = make(*arguments, *more)
        inputs = assembly.make_training_inputs(settings, splits[0]), None
        cached = assembly.make_cached_features(settings, network, inputs, splits, replicas)
        return cached is not None

    assert cached("--cached_views=2") == is_cached
    has_effect = is_cached and arguments[0] != "--augmentations="
    assert ("warning: cached_views 2" in capsys.readouterr().err) != has_effect
    cached()
    assert "cached_views" not in capsys.readouterr().err


def test_progressive(make, caplog):
    settings, train, _ = make("--progressive", "1=0.75,0=0.5", "--cache", "memory")
    whole = assembly.make_training_inputs(make()[0], train)
    progressive = assembly.make_training_inputs(settings, train)
    assert "at 0.75 of the image size" in caplog.text
    for epoch, size in ((0, 4), (1, 6)):
        batches = zip(progressive.batches(epoch, 1), whole.batches(epoch, 1), strict=True)
        for (images, labels), (_, whole_labels) in batches:
            assert images.shape[1:] == (size, size, 3)
            assert np.array_equal(labels, whole_labels)


@pytest.mark.parametrize(
    "words", ["0", "0=0", "0=1.1", "0.5=1", "-1=1", "inf=1", "0=nan", "1=1,1=1"]
)
def test_progressive_is_checked(make, words):
    settings, train, _ = make("--progressive", words)
    with pytest.raises(SettingsError, match="progressive"):
        assembly.make_training_inputs(settings, train)


def test_progressive_on_cached_features_is_refused(make, monkeypatch):
    settings, *splits = make("--progressive", "0=0.5,1=1")
    monkeypatch.setattr(assembly, "make_cached_features", lambda *_: "cached")
    with pytest.raises(SettingsError, match=r"progressive.*cache_features never"):
        assembly.make_trainer(settings, splits, Devices())


@pytest.mark.parametrize("words", ["pad_and_crop=2,flip,vertical_flip", "rotation,hue"])
def test_augment_on_device_makes_the_same_images(make, words):
    arguments = ["--augmentations", f"distorted_crop,{words}", "--progressive", "0=0.75,1=1"]
    inputs = [
        assembly.make_training_inputs(*make(*arguments, *more)[:2])
        for more in ([], ["--augment_on_device"])
    ]
    for epoch in (0, 1):
        for (images, labels), (others, other_labels) in zip(
            *(each.batches(epoch, 1) for each in inputs), strict=True
        ):
            difference = np.abs(images.numpy().astype(float) - others.numpy())
            # The order of rounding differs.
            assert difference.max() <= (2 if "hue" in words else 0)
            assert np.array_equal(labels, other_labels)


@pytest.mark.parametrize("word", ["random_erasing", "mixup", "trivial_augment"])
def test_augment_on_device_refuses(make, word):
    settings, train, _ = make("--augment_on_device", "--augmentations", f"flip,{word}")
    with pytest.raises(SettingsError, match=f"augment_on_device: {word}"):
        assembly.make_training_inputs(settings, train)


@pytest.mark.slow
def test_augment_on_device_trains_the_same_network(make):
    weights = []
    on_device = ["--augment_on_device"]
    for more in ([], on_device, [*on_device, "--engine=fit"]):
        common = ["--augmentations=flip", "--max_train_steps=3", "--resume=never"]
        settings, *splits = make(*common, *more)
        listener = Listener()
        trainer = assembly.make_trainer(settings, splits, Devices(), listeners=[listener])
        assert trainer.listeners[-1] is listener
        trainer.fit()
        weights.append(trainer.parts.network.get_weights())
    for host, loop, fit in zip(*weights, strict=True):
        assert np.array_equal(host, loop)
        assert np.array_equal(host, fit)


def test_same_seed_makes_same_weights(make):
    settings, train, _ = make()
    kernels = []
    for _ in range(2):
        assembly.seed_everything(settings)
        kernels.append(assembly.make_parts(settings, train, 4).network.variables[0].numpy())
    assert np.array_equal(*kernels)


@pytest.mark.slow
def test_multi_label_training_and_evaluation(options, colors, patches, capsys, tmp_path):
    given = [str(patches) if each == str(colors) else each for each in options]
    given += ["--augmentations=mixup"]
    run.main([*given, "--best_metric=exact_match"])
    out, err = capsys.readouterr()
    best = json.loads(out.splitlines()[-1])["validation"]
    # The best by another metric has a loss, too.
    assert f"validation loss {best['loss']:.4f}, accuracy {best['accuracy']:.4f}" in err
    assert best["exact_match"] >= 0.75
    assert best["accuracy"] >= best["exact_match"]
    snapshot = read_snapshot(tmp_path / "run" / "best")
    assert is_multi_label(snapshot.network)
    run.main(["evaluate", *given])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] >= 0.75
    # The same classes, but one per image: no image would be evaluated by the same rule.
    one = replace(read_splits(patches, "test")[0], is_multi_label=False)
    with pytest.raises(CheckpointError, match="multi-label"):
        load_network.make_inputs_for(snapshot, read_settings(given), one)


@pytest.mark.parametrize(
    ("arguments", "multi_label", "text"),
    [
        (["--head=softmax"], True, "head softmax"),
        (["--head=multi_label"], False, "head multi_label"),
        (["--balance=oversample"], True, "balance oversample"),
        (["--best_metric=exact_match"], False, "best_metric exact_match"),
    ],
)
def test_settings_that_do_not_fit_the_labels(make, patches, arguments, multi_label, text):
    settings, train, _ = make(*arguments)
    if multi_label:
        (train,) = read_splits(patches, "train")
    is_of_inputs = "--balance=oversample" in arguments
    function = assembly.make_training_inputs if is_of_inputs else assembly.make_parts
    with pytest.raises(SettingsError, match=text):
        function(settings, train, *([] if is_of_inputs else [4]))


def test_network_that_does_not_fit_into_memory_is_refused_before_training(make, monkeypatch):
    settings, train, _ = make("--width=64")
    monkeypatch.setattr(limits, "memory_bytes", lambda: 10_000)
    with pytest.raises(SettingsError, match="image_size"):
        assembly.make_parts(settings, train, 4)


def test_asynchronous_training_is_refused_before_workers_meet():
    # Nobody answers at these addresses: waiting for them would take 300 seconds.
    cluster = Cluster(("localhost:1", "localhost:2"), 0)
    with pytest.raises(SettingsError, match=r"sync_replicas .* 2 devices"):
        assembly.start_devices(read_settings(["--no-sync_replicas"]), cluster)


def test_several_devices_are_always_synchronous(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(
        assembly,
        "Devices",
        lambda strategy: SimpleNamespace(replicas=2, check_batch_size=lambda *_: None),
    )
    with pytest.raises(SettingsError, match=r"sync_replicas .* 2 devices"):
        assembly.start_devices(read_settings(["--no-sync_replicas"]))
    assert "synchronous" not in caplog.text
    assembly.start_devices(read_settings(["--sync_replicas"]))
    assert "synchronous" in caplog.text


def test_train_steps_replace_epochs():
    plan = assembly.make_plan(read_settings(["--train_steps", "100"]), 7)
    assert (plan.train_epochs, plan.total_steps(7)) == (15, 100)
    plan = assembly.make_plan(read_settings(["--max_train_steps", "1000"]), 7)
    assert plan.total_steps(7) == plan.train_epochs * 7 < 1000
