import itertools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from library.dataset.manifest import read_manifest
from library.dataset.unconverted import UnconvertedSplit, read_generated, read_unconverted
from library.errors import SettingsError
from library.inputs.decoding import ImageFormat
from library.inputs.examples import (
    DEFAULT_OPTIONS,
    FileSource,
    GeneratorSource,
    PipelineOptions,
    ShardSource,
    make_source,
)
from library.inputs.worker_slice import WorkerSlice
from tests.conftest import convert, write_colors

FORMAT = ImageFormat(16, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of 21 images, and what it becomes when converted into 4 shards."""
    folder = tmp_path_factory.mktemp("examples")
    write_colors(folder / "images" / "train", 7)
    convert(folder / "images" / "train", folder, "train", "--num_shards", "4")
    return folder


def sources(data):
    (files,) = read_unconverted(data / "images", ["train"], "folder")

    def generate(split):
        for number in range(files.examples):
            record = files.read(number)
            yield record.encoded, record.text

    (generated,) = read_generated(generate, ["train"])
    return [make_source(each) for each in (shards(data), files, generated)]


def shards(data):
    return read_manifest(data / "train", "train")


def images(source, random=None, options=DEFAULT_OPTIONS):
    keys = source.keys(random, options)
    given = keys.map(lambda key: source.load(key, FORMAT)).as_numpy_iterator()
    return [(image.tobytes(), int(label)) for image, label in given]


def test_each_example_has_the_name_of_its_file(data):
    *named, generated = sources(data)
    for source in named:
        names = source.keys().map(source.filename).as_numpy_iterator()
        labels = source.keys().batch(99).map(source.labels).get_single_element()
        found = [(name, int(label)) for name, label in zip(names, labels, strict=True)]
        assert (b"green/003.png", 1) in found
        assert len(set(found)) == 21
    assert next(generated.keys().map(generated.filename).as_numpy_iterator()) == b"image 0"


def test_shards_files_and_generators_give_the_same_images(data):
    converted, files, generated = sources(data)
    assert isinstance(converted, ShardSource)
    assert isinstance(files, FileSource)
    assert isinstance(generated, GeneratorSource)
    expected = sorted(images(converted))
    assert len(expected) == 21
    for source in (files, generated):
        assert sorted(images(source)) == expected
        assert source.count == 21
        assert source.class_counts == converted.class_counts == (7, 7, 7)


def test_nothing_is_tuned(data):
    for source in sources(data):
        for dataset in (source.keys(), source.indices()):
            assert dataset.options().autotune.enabled is False


def test_keys_are_a_function_of_the_random_numbers(data):
    for source in sources(data)[:2]:
        first = images(source, np.random.default_rng(1))
        few = PipelineOptions(num_parallel_reads=1)
        assert first == images(source, np.random.default_rng(1), few)
        assert first != images(source, np.random.default_rng(2))
        assert sorted(first) == sorted(images(source))


@pytest.mark.parametrize("interleaved", [1, 2, 16])
def test_numbers_are_in_the_order_of_keys(data, interleaved):
    converted = replace(sources(data)[0], interleaved=interleaved)
    # So that some shards end before others, and are opened after others have ended.
    assert len(set(converted.counts)) > 1
    everything = images(replace(converted, interleaved=1))
    for seed in range(3):
        keys = images(converted, np.random.default_rng(seed))
        numbers = converted.indices(np.random.default_rng(seed)).as_numpy_iterator()
        assert keys == [everything[each] for each in numbers]


@pytest.mark.parametrize("counts", [(3,), (1, 5, 2), (4, 4, 4, 1), (2, 9, 9, 1, 3)])
def test_numbers_of_shards_of_any_size_are_interleaved_as_tensorflow_does_it(counts):
    source = ShardSource(tuple("abcdefgh"[: len(counts)]), counts, (sum(counts),))
    begins = np.cumsum(counts) - counts
    for seed in range(5):
        random = (np.random.default_rng(seed) for _ in range(2))
        numbers = list(source.indices(next(random)).as_numpy_iterator())
        columns, open_shard = (begins, begins + counts), tf.data.Dataset.range
        turns = source.interleave(next(random), DEFAULT_OPTIONS, columns, open_shard)
        assert numbers == list(turns.as_numpy_iterator())
        assert sorted(numbers) == list(range(sum(counts)))


def test_labels_are_known_without_decoding(data):
    for source in sources(data):
        keys = next(iter(source.keys().batch(21)))
        assert source.labels(keys).numpy().tolist() == [label for _, label in images(source)]


def test_how_many_shards_are_interleaved_is_part_of_the_order(data):
    few, many = (make_source(shards(data), interleaved=each) for each in (1, 4))
    assert images(few) != images(many)
    assert few.mean_bytes == sum(each.bytes for each in shards(data).shards) // 21


def test_shards_can_be_divided_and_files_cannot(data):
    converted, files, _ = sources(data)
    own = [converted.for_worker(WorkerSlice(each, 3, by_file=True)) for each in range(3)]
    assert sorted(itertools.chain(*map(images, own))) == sorted(images(converted))
    with pytest.raises(SettingsError, match="at least one shard for each of the 5 workers"):
        converted.for_worker(WorkerSlice(0, 5, by_file=True))
    with pytest.raises(SettingsError, match="shard_by_file needs converted shards"):
        files.for_worker(WorkerSlice(0, 2, by_file=True))


def test_a_file_that_cannot_be_used_is_named(data, tmp_path):
    write_colors(tmp_path / "train", 1)
    (tmp_path / "train" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (split,) = read_unconverted(tmp_path, ["train"], "folder")
    assert isinstance(split, UnconvertedSplit)
    source = make_source(split)
    assert source.find_corruption() is None
    with pytest.raises(tf.errors.OpError):
        images(source)
    assert source.find_corruption().startswith(
        f"{tmp_path}/train/red/broken.jpg is a truncated or damaged JPEG"
    )


def test_the_size_of_generated_records_is_measured_not_guessed():
    random = np.random.default_rng(0)
    large = random.integers(0, 256, (300, 300, 3), np.uint8)
    for pixels in (large, large[:4, :4]):
        (split,) = read_generated(lambda name, each=pixels: [(each, "a")] * 5, ["train"])
        source = make_source(split)
        sizes = [len(each) for each in source.keys().as_numpy_iterator()]
        assert source.mean_bytes == pytest.approx(np.mean(sizes), abs=300)
