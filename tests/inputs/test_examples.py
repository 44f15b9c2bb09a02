import itertools
import re
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from library.dataset.manifest import read_manifest
from library.dataset.records import Record, frame, read_frames
from library.dataset.unconverted import UnconvertedSplit, read_generated, read_unconverted
from library.errors import DataError, SettingsError
from library.inputs.corruption import explain_read_errors
from library.inputs.decoding import ImageFormat, read_shape
from library.inputs.examples import (
    FileSource,
    GeneratorSource,
    ShardSource,
    make_source,
)
from library.inputs.worker_slice import WorkerSlice
from project.inputs import EvaluationPipeline
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


def images(source, random=None):
    keys = source.keys(random)
    given = keys.map(lambda key: source.load(key, FORMAT)).as_numpy_iterator()
    return [(image.tobytes(), int(label)) for image, label in given]


def test_filename_and_labels_of_each_source(data):
    *named, generated = sources(data)
    for source in named:
        names = source.keys().map(source.filename).as_numpy_iterator()
        labels = source.keys().batch(99).map(source.labels).get_single_element()
        found = [(name, int(label)) for name, label in zip(names, labels, strict=True)]
        assert (b"green/003.png", 1) in found
        assert len(set(found)) == 21
    assert next(generated.keys().map(generated.filename).as_numpy_iterator()) == b"image 0"


def test_sources_load_the_same_images(data):
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


def test_sources_turn_autotune_off(data):
    for source in sources(data):
        for dataset in (source.keys(), source.indices()):
            assert dataset.options().autotune.enabled is False


def test_keys_depend_on_the_random_generator_only(data):
    for source in sources(data)[:2]:
        first = images(source, np.random.default_rng(1))
        assert first == images(source, np.random.default_rng(1))
        assert first != images(source, np.random.default_rng(2))
        assert sorted(first) == sorted(images(source))


@pytest.mark.parametrize("interleaved", [1, 2, 16])
def test_indices_are_in_the_order_of_keys(data, interleaved):
    converted = replace(sources(data)[0], interleaved=interleaved)
    # So that some shards end before others, and are opened after others have ended.
    assert len(set(converted.counts)) > 1
    everything = images(replace(converted, interleaved=1))
    for seed in range(3):
        keys = images(converted, np.random.default_rng(seed))
        numbers = converted.indices(np.random.default_rng(seed)).as_numpy_iterator()
        assert keys == [everything[each] for each in numbers]


@pytest.mark.parametrize("counts", [(3,), (1, 5, 2), (4, 4, 4, 1), (2, 9, 9, 1, 3)])
def test_indices_of_shards_of_any_size_equal_interleave(counts):
    source = ShardSource(tuple("abcdefgh"[: len(counts)]), counts, (sum(counts),))
    begins = np.cumsum(counts) - counts
    for seed in range(5):
        random = (np.random.default_rng(seed) for _ in range(2))
        numbers = list(source.indices(next(random)).as_numpy_iterator())
        columns, open_shard = (begins, begins + counts), tf.data.Dataset.range
        turns = source.interleave(next(random), columns, open_shard)
        assert numbers == list(turns.as_numpy_iterator())
        assert sorted(numbers) == list(range(sum(counts)))


def test_labels_of_a_batch_of_keys(data):
    for source in sources(data):
        keys = next(iter(source.keys().batch(21)))
        assert source.labels(keys).numpy().tolist() == [label for _, label in images(source)]


def test_order_does_not_depend_on_parallel_reads(data):
    few, many = (make_source(shards(data), parallel_reads=each) for each in (1, 4))
    assert images(few, np.random.default_rng(1)) == images(many, np.random.default_rng(1))


def test_order_depends_on_interleaved_shards(data):
    few, many = (make_source(shards(data), interleaved=each) for each in (1, 4))
    assert images(few) != images(many)
    assert few.mean_bytes == sum(each.bytes for each in shards(data).shards) // 21


def test_for_worker_partitions_shards_only(data):
    converted, files, _ = sources(data)
    own = [converted.for_worker(WorkerSlice(each, 3, by_file=True)) for each in range(3)]
    assert sorted(itertools.chain(*map(images, own))) == sorted(images(converted))
    with pytest.raises(SettingsError, match="5 workers"):
        converted.for_worker(WorkerSlice(0, 5, by_file=True))
    with pytest.raises(SettingsError, match="shard_by_file"):
        files.for_worker(WorkerSlice(0, 2, by_file=True))


def test_find_corruption_names_the_file(data, tmp_path):
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


def test_mean_bytes_of_generated_records():
    random = np.random.default_rng(0)
    large = random.integers(0, 256, (300, 300, 3), np.uint8)
    for pixels in (large, large[:4, :4]):
        (split,) = read_generated(lambda name, each=pixels: [(each, "a")] * 5, ["train"])
        source = make_source(split)
        sizes = [len(each) for each in source.keys().as_numpy_iterator()]
        assert source.mean_bytes == pytest.approx(np.mean(sizes), abs=300)


def write_shard(path, count=2):
    for_each = np.random.default_rng(0)
    with path.open("wb") as file:
        for number in range(count):
            pixels = for_each.integers(0, 256, (2, 2, 1), np.uint8)
            encoded = tf.io.encode_jpeg(pixels, quality=20).numpy()
            file.write(frame(Record(encoded, 2, 2, number, "ab"[number], f"ab/{number}.png")))
    return EvaluationPipeline(ShardSource((str(path),), (count,), (1, 1)), ImageFormat(2, 1), 2)


def read_labels(inputs, batches):
    with explain_read_errors(inputs):
        return [labels.numpy().tolist() for _, labels in batches]


@pytest.mark.slow
def test_read_error_names_shard_and_record_at_every_byte(tmp_path):
    path = tmp_path / "shard.tfrecord"
    inputs = write_shard(path)
    batches = inputs.batches()
    assert read_labels(inputs, batches) == [[0, 1]]
    whole = path.read_bytes()
    with path.open("rb") as file:
        second = [offset for offset, _ in read_frames(file, path)][1]
    named = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        text = inputs.source.find_corruption()
        assert text.startswith(f"{path}: record {int(position >= second)} (at byte "), position
        assert "is damaged" in text or "is truncated" in text
        named += "it was made from ab/" in text
        # TensorFlow notices as well: tried with the framing of a record, and here and there in it.
        if second <= position < second + 13 or position % 200 == 0:
            with pytest.raises(DataError, match=re.escape(text)), explain_read_errors(inputs):
                list(batches)
    # All but the framing and the few bytes that hold the record together.
    assert named > 0.8 * len(whole)


def test_read_error_names_image_that_does_not_decode(tmp_path):
    path = tmp_path / "shard.tfrecord"
    path.write_bytes(frame(Record(b"no image", 2, 2, 0, "a", "a/odd.jpg")))
    inputs = EvaluationPipeline(ShardSource((str(path),), (1,), (1,)), ImageFormat(2, 1), 2)
    text = f"{path}: the record at byte 0, made from a/odd.jpg, is not a JPEG"
    with pytest.raises(DataError, match=text):
        read_labels(inputs, inputs.batches())


# Lengths below and above what a process can reserve, and one that wraps around with the framing.
@pytest.mark.parametrize("length", [10**6, 2**40, 2**62, 2**64 - 8])
def test_length_beyond_the_file_is_named(tmp_path, length):
    path = tmp_path / "shard.tfrecord"
    inputs = write_shard(path)
    content = path.read_bytes()
    size = len(content)
    header = length.to_bytes(8, "little")
    # The masked checksum that TensorFlow expects.
    crc = google_crc32c.value(header)
    crc = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    path.write_bytes(content + header + crc.to_bytes(4, "little") + b"?" * 99)
    inputs = replace(inputs, source=replace(inputs.source, counts=(3,)))
    with pytest.raises(DataError, match=rf"shard.tfrecord: record 2 \(at byte {size}\) is longer"):
        read_labels(inputs, inputs.batches())
    with path.open("rb") as file, pytest.raises(DataError, match="truncated"):
        list(read_frames(file, path))


@pytest.mark.parametrize("count", [1, 3])
def test_number_of_records_is_that_of_the_manifest(tmp_path, count):
    inputs = write_shard(tmp_path / "shard.tfrecord")
    inputs = replace(inputs, source=replace(inputs.source, counts=(count,)))
    with pytest.raises(DataError, match="has 2 records, the manifest lists"):
        read_labels(inputs, inputs.batches())


@pytest.mark.parametrize("is_multi_label", [False, True])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", 2),
        ("label", -1),
        ("label", 2**63 - 1),
        *(("height", each) for each in (0, -5, 10**9, 2**32 + 2)),
        *(("width", each) for each in (0, -5, 10**9, 2**62)),
    ],
)
def test_field_that_contradicts_the_manifest_is_named(tmp_path, field, value, is_multi_label):
    path = tmp_path / "shard.tfrecord"
    encoded = tf.io.encode_jpeg(np.zeros((2, 2, 1), np.uint8)).numpy()
    record = replace(Record(encoded, 2, 2, 0, "a", "a/odd.jpg"), **{field: value})
    path.write_bytes(frame(record))
    source = ShardSource((str(path),), (1,), (1, 1), is_multi_label=is_multi_label)
    inputs = EvaluationPipeline(source, ImageFormat(2, 1), 2)
    with pytest.raises(DataError, match=rf"byte 0, made from a/odd.jpg, .*{value}"):
        read_labels(inputs, inputs.batches())


def claim_size(encoded, edge):
    """Return a JPEG whose header says that it has edge x edge pixels."""
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + 2 * edge.to_bytes(2, "big") + encoded[at + 4 :]


@pytest.mark.parametrize(
    ("edge", "recorded"), [(40, 2), (30_000, 2), (30_000, 30_000), (1500, 1500)]
)
def test_jpeg_larger_than_recorded_or_possible_is_named(tmp_path, edge, recorded):
    path = tmp_path / "shard.tfrecord"
    encoded = claim_size(tf.io.encode_jpeg(np.zeros((2, 2, 1), np.uint8)).numpy(), edge)
    path.write_bytes(frame(Record(encoded, recorded, recorded, 0, "a", "a/odd.jpg")))
    source = ShardSource((str(path),), (1,), (1, 1))
    inputs = EvaluationPipeline(source, ImageFormat(2, 1), 2)
    with pytest.raises(DataError, match=rf"a/odd.jpg, .*{recorded}x{recorded} pixels"):
        read_labels(inputs, inputs.batches())


def test_cached_jpeg_of_impossible_size_is_refused():
    encoded = tf.io.encode_jpeg(np.zeros((2, 3, 1), np.uint8)).numpy()
    assert read_shape(encoded).numpy().tolist() == [2, 3, 1]
    for edge in (65_000, 20_000):
        with pytest.raises(tf.errors.InvalidArgumentError):
            read_shape(claim_size(encoded, edge) + bytes(2**20))


def test_read_error_names_missing_shard(tmp_path):
    inputs = write_shard(tmp_path / "shard.tfrecord")
    (tmp_path / "shard.tfrecord").unlink()
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "shard.tfrecord"))):
        read_labels(inputs, inputs.batches())


def test_other_errors_stay_as_they_are(tmp_path):
    inputs = write_shard(tmp_path / "shard.tfrecord")
    assert inputs.source.find_corruption() is None
    with pytest.raises(tf.errors.InvalidArgumentError), explain_read_errors(inputs):
        tf.ensure_shape(tf.zeros([2]), [3])


def test_stale_shards_are_not_read(tmp_path):
    from PIL import Image

    for number in range(6):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(path)
    convert(tmp_path / "images", tmp_path, "train", "--num_shards", "3")
    stale = {each.name: each.read_bytes() for each in (tmp_path / "train").glob("*.tfrecord")}
    convert(tmp_path / "images", tmp_path, "train", "--num_shards", "2", "--overwrite")
    for name, content in stale.items():
        (tmp_path / "train" / name).write_bytes(content)
    assert len(list((tmp_path / "train").glob("*.tfrecord"))) == 5
    source = make_source(read_manifest(tmp_path / "train", "train"))
    inputs = EvaluationPipeline(source, ImageFormat(8, 1), 4)
    pixels = [int(image[0, 0, 0]) for images, _ in inputs.batches() for image in images]
    assert len(pixels) == len(set(pixels)) == 6
