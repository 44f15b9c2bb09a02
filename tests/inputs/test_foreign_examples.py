"""Examples in foreign TFRecord files: the same as converted ones, in an order that is stable."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from library.dataset.conversion import Source, convert
from library.dataset.foreign_splits import read_foreign_splits
from library.dataset.images import ImageOptions
from library.dataset.options import ConversionOptions
from library.dataset.sources.find import SourceOptions, find_files
from library.errors import DataError
from library.inputs.caching import cache_examples
from library.inputs.corruption import explain_read_errors
from library.inputs.decoding import ImageFormat
from library.inputs.examples import ForeignShardSource, make_source
from library.inputs.worker_slice import WorkerSlice
from project.inputs import EvaluationPipeline, TrainingPipeline
from tests.helpers.foreign_records import write_examples

FORMAT = ImageFormat(16, 3)


def encoded(number, kind="jpeg", **options):
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    file = io.BytesIO()
    mode = options.pop("mode", "RGB")
    Image.fromarray(pixels).resize((40, 30)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return found


# Images that a decoder of plain JPEGs would show wrongly, or not at all.
IMAGES = [
    encoded(0),
    encoded(1, "png"),
    encoded(2, progressive=True),
    encoded(3, exif=exif(6)),
    encoded(4, mode="CMYK"),
    encoded(5, mode="L"),
    encoded(6, "webp"),
    encoded(7, "png", mode="LA"),
]


# (file, number of the record) of those that have no name.
NAMELESS = ((0, 0), (0, 2), (1, 0), (2, 0))


def write(folder, compression=""):
    rows = [
        {"image_raw": IMAGES[n % len(IMAGES)], "label": n % 3, "filename": f"{n}.jpg"}
        for n in range(24)
    ]
    for number in range(3):
        path = folder / f"train-{number}-of-3"
        write_examples(path, *rows[number::3], compression=compression)
    return str(folder / "train-*")


def read(pattern, **options):
    found = read_foreign_splits({"train": [pattern]}, SourceOptions(**options), "code_point")
    return found["train"]


def images(source):
    keys = source.keys()
    pairs = keys.map(lambda key: (source.filename(key), *source.load(key, FORMAT)))
    return {name: (image.tobytes(), int(label)) for name, image, label in pairs.as_numpy_iterator()}


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    return write(tmp_path_factory.mktemp("foreign"))


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_pixels_and_labels_are_those_of_a_conversion(tmp_path, compression):
    pattern = write(tmp_path / "foreign", compression)
    options = ConversionOptions(ImageOptions(max_edge=0), num_workers=1)
    converted = convert(Source(pattern, "train"), tmp_path / "converted", "train", options)
    found = images(make_source(read(pattern)))
    assert len(found) == 24
    assert found == images(make_source(converted))


@pytest.mark.parametrize("interleaved", [1, 2, 16])
def test_records_without_a_name_are_named_as_by_conversion(tmp_path, interleaved):
    for shard in range(3):
        rows = [{"image": IMAGES[0], "label": 0, "filename": each} for each in ("", "a", "")]
        write_examples(tmp_path / f"train-{shard}", *rows[: 3 - shard])
    split = read(str(tmp_path / "train-*"))
    source = make_source(split, interleaved)
    expected = {each.name for each in find_files(str(tmp_path / "train-*"), SourceOptions())}
    for each in (source, cache_examples(source, FORMAT, "memory")):
        batches = EvaluationPipeline(each, FORMAT, 4).named_batches()
        names = [name.decode() for _, _, some in batches for name in some.numpy()]
        assert {*names} == expected == {"a", *(f"train-{n}/{m}" for n, m in NAMELESS)}
    assert names[0] == "train-0/0"


def test_labels_of_a_batch_of_keys(pattern):
    source = make_source(read(pattern))
    labels = source.keys().batch(99).map(source.labels).get_single_element()
    assert np.bincount(labels).tolist() == [8, 8, 8]


def test_multi_label_records(tmp_path):
    rows = [{"image": IMAGES[0], "label": each} for each in ([0, 2], [], [1])]
    write_examples(tmp_path / "a", *rows)
    source = make_source(read(str(tmp_path / "a"), is_multi_label=True))
    labels = source.keys().map(lambda key: source.load(key, FORMAT)[1]).as_numpy_iterator()
    assert [each.tolist() for each in labels] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("start", [0, 3, 7])
def test_order_is_a_function_of_seed_and_epoch(pattern, start):
    def epoch(number, seed=0, start_batch=0):
        inputs = TrainingPipeline(make_source(read(pattern)), FORMAT, 3, 10, seed)
        batches = inputs.batches(number, start_batch).as_numpy_iterator()
        return [images.tobytes() for images, _ in batches]

    assert epoch(1, start_batch=start) == epoch(1)[start:]
    assert epoch(1) != epoch(2)
    assert epoch(1) != epoch(1, seed=1)


def test_workers_share_an_epoch(pattern):
    source = make_source(read(pattern))
    parts = [source.for_worker(WorkerSlice(n, 2, by_file=True)) for n in range(2)]
    assert all(isinstance(each, ForeignShardSource) for each in parts)
    found = [images(each) for each in parts]
    assert {**found[0], **found[1]} == images(source)
    assert not found[0].keys() & found[1].keys()


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_file_that_changed_after_it_was_indexed_is_named(tmp_path, compression):
    pattern = write(tmp_path, compression)
    split = read(pattern)
    path = tmp_path / "train-1-of-3"
    path.write_bytes(path.read_bytes()[:-20])
    inputs = EvaluationPipeline(make_source(split), FORMAT, 5)
    with pytest.raises(DataError, match="train-1-of-3"), explain_read_errors(inputs):
        list(inputs.batches())


def test_image_that_does_not_decode_is_named(tmp_path):
    pattern = write(tmp_path)
    split = read(pattern)
    rows = [{"image_raw": b"not an image", "label": 0}] * 8
    write_examples(tmp_path / "train-1-of-3", *rows)
    inputs = EvaluationPipeline(make_source(split), FORMAT, 5)
    with (
        pytest.raises(DataError, match=r"train-1-of-3: record 0 is not a JPEG"),
        explain_read_errors(inputs),
    ):
        list(inputs.batches())


def test_keys_are_records_as_they_are(pattern):
    source = make_source(read(pattern))
    key = next(iter(source.keys()))
    assert tf.train.Example.FromString(key.numpy()).features.feature["image_raw"]
