import ctypes
import gc
import io
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.manifest import read_manifest
from library.dataset.records import Record, frame
from library.dataset.unconverted import read_generated, read_unconverted
from library.inputs.decoding import ImageFormat
from library.inputs.examples import PipelineOptions, ShardSource, make_source
from library.inputs.worker_slice import WorkerSlice
from project.augmentations import choose_augmentations
from project.inputs import EvaluationPipeline, TrainingPipeline, generate_images
from tests.conftest import convert

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """50 gray images, each of one brightness of its own, so that a pixel tells which one it is."""
    folder = tmp_path_factory.mktemp("numbered")
    for number in range(50):
        path = folder / "images" / "train" / f"class{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 5 * number).save(path)
    convert(folder / "images" / "train", folder, "train", "--num_shards", "5")
    return read_manifest(folder / "train", "train")


def make_training(manifest, **changes):
    options = {
        "source": make_source(manifest),
        "image_format": ImageFormat(8, 1),
        "batch_size": 8,
        "shuffle_examples": 20,
        "seed": 0,
    }
    return TrainingPipeline(**{**options, **changes})


def arrays(batches):
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def numbers(batches):
    """Which images there were, in order."""
    return [round(float(image[0, 0, 0]) / 5) for images, _ in batches for image in images]


def test_epoch_has_each_example_once_with_its_label(numbered):
    batches = arrays(make_training(numbered).batches(0))
    assert sorted(numbers(batches)) == list(range(50))
    labels = [label for _, labels in batches for label in labels]
    assert labels == [number % 2 for number in numbers(batches)]
    assert [len(labels) for _, labels in batches] == [8] * 6 + [2]
    assert batches[0][0].dtype == np.uint8
    assert batches[0][1].dtype == np.int64


def test_order_is_a_function_of_seed_and_epoch(numbered):
    def order(epoch, **changes):
        return numbers(arrays(make_training(numbered, **changes).batches(epoch)))

    assert order(3) == order(3)
    assert order(3) == order(3, options=PipelineOptions(1, prefetch_batches=0))
    assert len({tuple(order(0)), tuple(order(1)), tuple(order(0, seed=1))}) == 3
    assert order(0) != sorted(order(0))


def generate_numbered(split):
    """Yield what is in the files of `numbered`."""
    for number in range(50):
        yield np.full((8, 8, 1), 5 * number, np.uint8), f"class{number % 2}"


def split_of(numbered, kind):
    """The images of `numbered` in shards, in files, or from a generator."""
    if kind == "shards":
        return numbered
    if kind == "generator":
        return read_generated(generate_numbered, ["train"])[0]
    folder = Path(numbered.paths[0]).parent.parent / "images"
    return read_unconverted(folder, ["train"], "folder")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "batch_size", "words"),
    [
        ("shards", 8, ["distorted_crop", "flip", "mixup"]),
        ("shards", 25, ["distorted_crop=0.5", "brightness", "pad_and_crop=2", "aug_mix", "cutmix"]),
        ("files", 16, ["distorted_crop", "brightness", "mixup"]),
        ("generator", 16, ["distorted_crop", "brightness", "mixup"]),
    ],
)
def test_batches_start_at_any_batch(numbered, kind, batch_size, words):
    training = make_training(
        split_of(numbered, kind), batch_size=batch_size, augmentations=choose_augmentations(words)
    )
    whole = arrays(training.batches(2))
    assert len(whole) == training.batches_per_epoch
    for start in range(len(whole) + 1):
        rest = arrays(training.batches(2, start))
        assert len(rest) == len(whole) - start
        for (images, labels), (same_images, same_labels) in zip(whole[start:], rest, strict=True):
            assert np.array_equal(images, same_images)
            assert np.array_equal(labels, same_labels)


def test_augmentation_is_independent_of_batch_size_and_threads(numbered):
    """What changes it is made of seed, epoch and example, so that it can be made again."""
    chosen = choose_augmentations(["distorted_crop", "brightness=0.5"])

    def epoch(number, **changes):
        inputs = make_training(numbered, augmentations=chosen, **changes)
        return np.concatenate([images for images, _ in arrays(inputs.batches(number))])

    usual = epoch(1)
    slow = PipelineOptions(1, prefetch_examples=3, prefetch_batches=0)
    assert np.array_equal(usual, epoch(1, batch_size=25, options=slow))
    assert not np.array_equal(usual, epoch(2))
    assert not np.array_equal(usual, epoch(1, seed=1))


def test_evaluation_is_in_order_and_complete(numbered):
    inputs = EvaluationPipeline(make_source(numbered), ImageFormat(8, 1), 16)
    first, second = numbers(arrays(inputs.batches())), numbers(arrays(inputs.batches()))
    assert first == second
    assert sorted(first) == list(range(50))
    slow = replace(inputs, options=PipelineOptions(1, prefetch_batches=0))
    assert [len(labels) for _, labels in inputs.batches()] == [16, 16, 16, 2]
    assert numbers(arrays(slow.batches())) == first


def resident_bytes():
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def growth(inputs, epochs):
    """How much more memory than before is resident: at most within each epoch, and after it."""
    settle()
    before = resident_bytes()
    most, left = [], []
    for epoch in range(epochs):
        most.append(max(resident_bytes() for _ in inputs.batches(epoch)) - before)
        settle()
        left.append(resident_bytes() - before)
    return np.array(most), np.array(left)


def settle():
    """Return back to the system what is free: allocators keep more or less of it for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """Tiny images in large files: what is read weighs, not what it takes to decode it."""
    start, rest = encode(Image.new("RGB", (8, 8))).partition(b"\xff\xe0")[::2]
    # Comments, each as long as a JPEG's can be.
    padding = (b"\xff\xfe\xff\xff" + bytes(65_533)) * 8
    encoded = start + padding + b"\xff\xe0" + rest
    path = tmp_path / "shard"
    with path.open("wb") as file:
        for number in range(64):
            file.write(frame(Record(encoded, 8, 8, number % 2, "ab"[number % 2], str(number))))
    times = 12
    data = times * path.stat().st_size
    assert data > 400e6
    source = ShardSource((str(path),) * times, (64,) * times, (32 * times,) * 2, len(encoded))
    inputs = TrainingPipeline(source, ImageFormat(8, 3), 32, shuffle_examples=32, seed=0)
    most, left = (grown / data for grown in growth(inputs, 6))
    assert most.max() < 0.5
    # Were each epoch to leave a tenth of the data behind, it would be 0.3. The least of
    # several is what is left for good: threads end a moment after their epoch.
    assert left[3:].min() - left[:3].min() < 0.15
    # And where all are kept, to draw from, it is seen.
    all_kept, _ = growth(replace(inputs, shuffle_examples=64 * times), 1)
    assert all_kept[0] / data > most.max() + 0.3


def encode(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentations", [(), ("distorted_crop",)])
def test_images_get_the_size_of_the_network(tmp_path, channels, augmentations):
    for number, size in enumerate([(40, 20), (9, 33), (8, 8)]):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Image.new("RGB", size, (200, 100, 50))))
    convert(tmp_path / "images", tmp_path, "train")
    manifest = read_manifest(tmp_path / "train", "train")
    chosen = choose_augmentations(augmentations)
    training = make_training(manifest, image_format=ImageFormat(8, channels), augmentations=chosen)
    ((images, _),) = arrays(training.batches(0))
    assert images.shape == (3, 8, 8, channels)
    expected = [200, 100, 50] if channels == 3 else [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]
    assert np.abs(images.astype(int) - expected).max() <= 3


def joined(workers):
    """The batches of several workers as one would have made them."""
    return [tuple(np.concatenate(each) for each in zip(*parts, strict=True)) for parts in workers]


@pytest.mark.slow
def test_workers_together_make_the_batches_of_one(numbered):
    count = 4  # Of the last batch, two of them get nothing.
    words = ["flip", "brightness", "cutmix"]
    training = make_training(numbered, augmentations=choose_augmentations(words))
    evaluation = EvaluationPipeline(make_source(numbered), ImageFormat(8, 1), 8)
    for inputs, start in ((training, (1, 3)), (evaluation, ())):
        alone = arrays(inputs.batches(*start))
        parts = [WorkerSlice(each, count) for each in range(count)]
        workers = [arrays(replace(inputs, worker_slice=part).batches(*start)) for part in parts]
        assert {len(each) for each in workers} == {len(alone)}
        together = joined(zip(*workers, strict=True))
        for (images, labels), (same_images, same_labels) in zip(alone, together, strict=True):
            assert np.array_equal(images, same_images)
            assert np.array_equal(labels, same_labels)


def test_by_file_workers_read_their_own_shards(numbered):
    training = make_training(numbered)
    own = [replace(training, worker_slice=WorkerSlice(each, 2, by_file=True)) for each in range(2)]
    seen = [arrays(each.batches(0)) for each in own]
    assert len(seen[0]) == len(seen[1]) == own[0].batches_per_epoch
    assert sorted(numbers(seen[0]) + numbers(seen[1])) == list(range(50))
    assert numbers(arrays(own[0].batches(0))) == numbers(seen[0])
    # The first worker has three of the five shards, the second one no batch left at the end.
    assert numbers(seen[0][2:]) == numbers(arrays(own[0].batches(0, 2)))


def test_by_file_workers_have_their_own_seeds(numbered):
    """Each counts its own examples from 0: the seeds of two workers must differ all the same."""
    shards = make_source(numbered)
    twice = ShardSource(shards.paths[:1] * 2, shards.counts[:1] * 2, (10, 10))
    chosen = choose_augmentations(["random_erasing=1"])
    whole = make_training(numbered, source=twice, augmentations=chosen)
    first, second = (
        arrays(replace(whole, worker_slice=part).batches(0))
        for part in WorkerSlice(0, 2, by_file=True).siblings()
    )
    pixels = [
        {image.tobytes() for images, _ in each for image in images} for each in (first, second)
    ]
    assert len(pixels[0]) == len(pixels[1]) == 10
    assert not pixels[0] & pixels[1]


def test_nondeterministic_epoch_has_each_example_once(numbered):
    training = make_training(numbered, options=PipelineOptions(deterministic=False))
    assert sorted(numbers(arrays(training.batches(0)))) == list(range(50))
    assert not training.batches(0).options().deterministic
    assert make_training(numbered).batches(0).options().deterministic


def test_nondeterministic_workers_partition_the_examples(numbered):
    """Each worker picks by position: in any other order than the others', it would miss some."""
    shards = make_source(numbered)
    # Many, so that which shard answers first differs from worker to worker.
    source = ShardSource(shards.paths * 8, shards.counts * 8, (200, 200))
    unordered = make_training(numbered, source=source, options=PipelineOptions(deterministic=False))
    for _ in range(3):
        parts = [replace(unordered, worker_slice=part) for part in WorkerSlice(0, 2).siblings()]
        seen = [number for part in parts for number in numbers(arrays(part.batches(0)))]
        assert sorted(seen) == sorted(list(range(50)) * 8)


class SlowAtZero(ShardSource):
    """ShardSource whose image 0 takes long to decode."""

    def load(self, *how):
        image, label = super().load(*how)

        def wait(pixels):
            time.sleep(0 if pixels[0, 0, 0] else 0.3)
            return pixels

        return tf.ensure_shape(tf.numpy_function(wait, [image], tf.uint8), image.shape), label


def test_nondeterministic_training_takes_ready_images_first(numbered):
    shards = make_source(numbered)
    source = SlowAtZero(shards.paths, shards.counts, shards.class_counts)
    ordered, unordered = (
        PipelineOptions(num_parallel_calls=4),
        PipelineOptions(4, deterministic=False),
    )
    plain, hasty = (
        numbers(arrays(make_training(numbered, source=source, options=each).batches(0)))
        for each in (ordered, unordered)
    )
    assert plain.index(0) < hasty.index(0)
    assert sorted(hasty) == list(range(50))
    evaluation = EvaluationPipeline(source, ImageFormat(8, 1), 8, options=unordered)
    in_order = numbers(arrays(replace(evaluation, source=shards, options=ordered).batches()))
    assert numbers(arrays(evaluation.batches())) == in_order


def test_batches_are_prefetched_to_a_device(numbered):
    device = tf.config.list_logical_devices("CPU")[0].name
    options = PipelineOptions(prefetch_to_device=1, device=device)
    ready = make_training(numbered, options=options)
    assert numbers(arrays(ready.batches(0))) == numbers(arrays(make_training(numbered).batches(0)))


def test_mixed_labels_are_shares_of_classes(numbered):
    training = make_training(numbered, augmentations=choose_augmentations(["mixup=1"]))
    for images, labels in training.batches(0):
        assert images.dtype == tf.uint8
        assert labels.dtype == tf.float32
        assert labels.shape == (len(images), 2)
        assert np.allclose(tf.reduce_sum(labels, 1), 1)
    shares = np.concatenate([labels for _, labels in arrays(training.batches(0))])
    assert ((shares > 0.01) & (shares < 0.99)).any()
    # Each example counts once in all, whatever it is mixed with.
    assert np.allclose(shares.sum(0), [25, 25])


@pytest.mark.slow
def test_oversampling_repeats_the_smaller_class(tmp_path):
    for name, count in (("a", 3), ("b", 13)):
        for number in range(count):
            path = tmp_path / "images" / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 15 * number + (name == "a")).save(path)
    convert(tmp_path / "images", tmp_path, "train")
    manifest = read_manifest(tmp_path / "train", "train")
    training = make_training(manifest, is_oversampled=True, batch_size=4)
    assert training.examples == 26
    assert training.batches_per_epoch == 7
    for epoch in range(3):
        batches = arrays(training.batches(epoch))
        labels = np.concatenate([each for _, each in batches])
        assert np.bincount(labels).tolist() == [13, 13]
        pixels = np.concatenate([images[:, 0, 0, 0] for images, _ in batches])
        # 13 = 4 + 4 + 5 times the same three.
        assert sorted(np.unique(pixels[labels == 0], return_counts=True)[1]) == [4, 4, 5]
        assert len(set(pixels[labels == 1])) == 13
        rest = np.concatenate([each for _, each in arrays(training.batches(epoch, 3))])
        assert np.array_equal(labels[12:], rest)


def test_generate_images_yields_the_same_each_time():
    for split in ("train", "validation", "test"):
        first, second = list(generate_images(split)), list(generate_images(split))
        assert {label for _, label in first} == {"level", "upright"}
        for (image, label), (same_image, same_label) in zip(first, second, strict=True):
            assert np.array_equal(image, same_image)
            assert label == same_label


def test_multi_label_images_have_a_one_per_class(patches):
    manifest = read_manifest(patches / "train", "train")
    training = make_training(manifest, image_format=ImageFormat(8, 3), batch_size=48)
    ((images, labels),) = arrays(training.batches(0))
    assert labels.dtype == np.float32
    assert labels.sum(0).tolist() == list(manifest.class_counts)
    # Blue is on the right, red on the left: the pixels tell.
    blue = images[:, 4, 6, 2].astype(int) - images[:, 4, 6, 0] > 100
    red = images[:, 4, 1, 0].astype(int) - images[:, 4, 1, 2] > 100
    assert np.array_equal(labels, np.stack([blue, red], 1))


@pytest.mark.slow
@pytest.mark.parametrize("word", ["mixup=1", "cutmix=1"])
def test_multi_label_labels_are_mixed(patches, word):
    manifest = read_manifest(patches / "train", "train")
    plain, mixed = (
        make_training(manifest, image_format=ImageFormat(8, 3), batch_size=48, augmentations=each)
        for each in (choose_augmentations(()), choose_augmentations((word,)))
    )
    ((_, before),), ((_, after),) = arrays(plain.batches(0)), arrays(mixed.batches(0))
    # Each pair is mixed both ways: together they still have what they had.
    pairs = before.reshape(24, 2, 2), after.reshape(24, 2, 2)
    assert np.allclose(pairs[0].sum(1), pairs[1].sum(1), atol=1e-6)
    assert len(np.unique(after)) > 4
