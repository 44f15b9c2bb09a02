"""Converting TFRecord files of other programs: layouts, compression, contradicting classes."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from library.dataset.conversion import Source, convert
from library.dataset.options import ConversionOptions
from library.dataset.record_fields import read_field_names
from library.dataset.sources.base import NO_CLASS
from library.dataset.sources.find import SourceOptions, find_files
from library.errors import DataError, SettingsError
from tests.helpers.converting import records
from tests.helpers.foreign_records import image_bytes, write_examples

OPTIONS = ConversionOptions(num_workers=1)


def labels(source, *words, is_multi_label=False):
    options = SourceOptions(tfrecord_fields=words, is_multi_label=is_multi_label)
    return [file.label for file in find_files(source, options)]


def example(label=None, text=None, **fields):
    found = {"image/encoded": image_bytes(), **fields}
    if label is not None:
        found["image/class/label"] = label
    if text is not None:
        found["image/class/text"] = text
    return found


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"image/encoded": image_bytes(), "image/class/label": 3, "image/class/text": "a"}, "a"),
        ({"image_raw": image_bytes(), "label": 3, "height": 12, "width": 16, "depth": 3}, "3"),
        ({"image": image_bytes(kind="png"), "label": 3}, "3"),
        ({"image": image_bytes(), "label": "a"}, "a"),
        ({"image": image_bytes(), "label": 3.0}, "3"),
        ({"image": image_bytes(), "class": 3, "class_name": "a"}, "a"),
        ({"image/encoded": image_bytes(), "image/object/class/label": [3, 3]}, "3"),
        ({"image/encoded": image_bytes(), "image/object/class/text": ["a", "a"]}, "a"),
        ({"img": image_bytes(), "label": 3, "filename": "x.jpg", "bbox": [0.5, 1.0]}, "3"),
    ],
)
def test_usual_layouts_are_recognized(tmp_path, fields, found):
    path = write_examples(tmp_path / "a.tfrecord", fields)
    (file,) = find_files(path)
    assert file.label == found
    assert Image.open(io.BytesIO(file.location.read())).size == (16, 12)
    assert file.name == fields.get("filename", "a.tfrecord/0")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("is_list", [False, True])
def test_pixels_are_an_image(tmp_path, channels, is_list):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
    image = pixels.ravel() if is_list else pixels.tobytes()
    fields = {"image_raw": image, "label": 0, "height": 5, "width": 4, "depth": channels}
    (file,) = find_files(write_examples(tmp_path / "a.tfrecord", fields))
    found = np.asarray(Image.open(io.BytesIO(file.location.read())))
    np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


def test_unknown_fields_are_listed_and_named(tmp_path):
    path = write_examples(tmp_path / "a.tfrecord", {"x": image_bytes(), "z": 1, "name": "cat"})
    with pytest.raises(DataError, match=r"record 0 .*name \(bytes\), x \(bytes\), z \(int64\)"):
        labels(path)
    with pytest.raises(DataError, match=r"record 0 .*label=NAME"):
        labels(path, "image=x")
    assert labels(path, "image=x", "label=z") == ["1"]
    assert labels(path, "image=x", "label=z", "text=name") == ["cat"]
    assert labels(path, "image=x", "label=none", "text=none") == [NO_CLASS]


@pytest.mark.parametrize("words", [["imag=x"], ["image"], ["image="], ["=x"]])
def test_tfrecord_fields_are_checked(words):
    with pytest.raises(SettingsError, match="tfrecord_fields"):
        read_field_names(words)


CONTRADICTIONS = {
    "two labels with one text": [(0, "a"), (1, "a")],
    "one label with two texts": [(0, "a"), (0, "b")],
    "some texts missing": [(0, "a"), (1, None)],
    "the first text missing": [(0, None), (1, "b")],
    "an empty text": [(0, "a"), (1, "")],
    "some labels missing": [(0, "a"), (None, "b")],
}


@pytest.mark.parametrize("rows", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_label_and_text_are_one_to_one(tmp_path, rows):
    write_examples(tmp_path / "a-0.tfrecord", example(*rows[0]))
    write_examples(tmp_path / "a-1.tfrecord", example(*rows[1]))
    source = tmp_path / "a-*.tfrecord"
    with pytest.raises(DataError, match=r"a-1\.tfrecord: record 0 .*a-0.*--tfrecord_fields"):
        labels(source)
    if all(label is not None for label, _ in rows):
        assert labels(source, "text=none") == [str(label) for label, _ in rows]
    if all(text for _, text in rows):
        assert labels(source, "label=none") == [text for _, text in rows]


@pytest.mark.parametrize("text", [None, ""])
def test_labels_without_any_text_are_classes(tmp_path, text):
    path = write_examples(tmp_path / "a.tfrecord", *(example(n, text) for n in (2, 10)))
    assert labels(path) == ["2", "10"]


def test_negative_label_is_no_class(tmp_path):
    path = write_examples(tmp_path / "a.tfrecord", example(0), example(-1), example(1))
    options = ConversionOptions(num_workers=1, max_bad_fraction=0.5)
    manifest = convert(Source(str(path), "train"), tmp_path, "train", options)
    assert manifest.classes == ("0", "1")
    assert "the label -1" in manifest.rejected[0]["reason"]


@pytest.mark.parametrize(
    ("numbers", "words"), [((1, 2), "1, 2"), ((0, 2, 5), "0, 2, 5"), ((0, 1), "")]
)
def test_labels_that_are_no_ids_are_reported(tmp_path, caplog, numbers, words):
    caplog.set_level(logging.INFO)
    labels(write_examples(tmp_path / "a.tfrecord", *map(example, numbers)))
    assert bool(caplog.records) == bool(words)
    assert words in caplog.text


def test_several_labels_need_multi_label(tmp_path):
    rows = [example([1, 0], ["b", "a"]), example([1], ["b"]), example()]
    path = write_examples(tmp_path / "a.tfrecord", *rows[:2])
    with pytest.raises(DataError, match=r"record 0 has several classes .*--multi_label"):
        labels(path)
    path = write_examples(tmp_path / "a.tfrecord", *rows)
    assert labels(path, is_multi_label=True) == [("a", "b"), ("b",), ()]
    source = Source(str(path), "train", SourceOptions(is_multi_label=True))
    manifest = convert(source, tmp_path, "train", OPTIONS)
    assert manifest.is_multi_label
    assert manifest.class_counts == (1, 2)


def test_multi_label_fields_are_of_one_length(tmp_path):
    path = write_examples(tmp_path / "a.tfrecord", example([1, 0], ["b"]))
    with pytest.raises(DataError, match=r"record 0 .*--tfrecord_fields"):
        labels(path, is_multi_label=True)


def test_zlib_is_named(tmp_path):
    path = write_examples(tmp_path / "a.tfrecord", example(0), compression="ZLIB")
    with pytest.raises(DataError, match=r"a\.tfrecord .*zlib"):
        labels(path)


def test_compressed_files_convert_alike(tmp_path):
    rows = [example(n % 3, **{"image/filename": f"{n}.jpg"}) for n in range(9)]
    write_examples(tmp_path / "plain" / "a.tfrecord", *rows)
    write_examples(tmp_path / "compressed" / "a.tfrecord", *rows, compression="GZIP")
    manifests = [
        convert(Source(str(tmp_path / each / "a.tfrecord"), "train"), tmp_path / each, "t", OPTIONS)
        for each in ("plain", "compressed")
    ]
    assert manifests[0].fingerprint == manifests[1].fingerprint
    assert len(list(records(manifests[1]))) == 9


def test_concatenated_gzip_is_read_whole(tmp_path):
    one = write_examples(tmp_path / "a.tfrecord", example(0), compression="GZIP")
    one.write_bytes(one.read_bytes() * 2)
    assert labels(one) == ["0", "0"]


@pytest.mark.parametrize("cut", [20, -3])
def test_damaged_gzip_is_named(tmp_path, cut):
    path = write_examples(tmp_path / "a.tfrecord", *map(example, range(3)), compression="GZIP")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.tfrecord"):
        labels(path)


@pytest.mark.parametrize(
    "name",
    [
        "a.tfrecord",
        "a.tfrecords",
        "train.record",
        "train-00000-of-00010",
        "a.gz",
        "x",
        "a.TFRECORD",
    ],
)
@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_any_name_is_taken(tmp_path, name, compression):
    path = write_examples(tmp_path / name, example(0, "cat"), compression=compression)
    assert labels(path) == ["cat"]
    assert labels(path.with_name(f"{path.stem[:1]}*")) == ["cat"]


def test_class_order_is_recorded_and_kept_by_other_splits(tmp_path):
    path = write_examples(tmp_path / "a.tfrecord", *map(example, (2, 10, 1)))
    source, options = Source(str(path), "train"), ConversionOptions(num_workers=1)
    natural = ConversionOptions(num_workers=1, class_order="natural")
    default = convert(source, tmp_path / "default", "train", options)
    assert default.classes == ("1", "10", "2")
    assert "class_order" not in default.settings
    train = convert(source, tmp_path / "train", "train", natural)
    assert train.classes == ("1", "2", "10")
    assert train.settings["class_order"] == "natural"
    test = convert(source, tmp_path / "test", "test", options)
    assert test.classes == train.classes
    assert [train.classes[each.label] for each in records(test)] == [
        each.text for each in records(test)
    ]


@pytest.mark.parametrize("pattern", ["a/*", "a/r-?", "a/r-[01]", "*/r-*"])
def test_patterns_name_records_and_nothing_beside_them(tmp_path, pattern):
    for number in range(2):
        path = tmp_path / "a" / f"r-{number}"
        path.parent.mkdir(exist_ok=True)
        write_examples(path, example(number, "xy"[number]))
    for name in (".tfrecord_index_0.json", "train.manifest.json"):
        (tmp_path / "a" / name).write_text("{}")
    assert labels(tmp_path / pattern) == ["x", "y"]


def test_folder_of_records_names_the_pattern(tmp_path):
    write_examples(tmp_path / "a-00000-of-00001", example(0, "x"))
    with pytest.raises(DataError, match=r"TFRecord files in it, such as '.*/\*'"):
        convert(Source(str(tmp_path), "train"), tmp_path / "out", "train", OPTIONS)


def test_one_hot_label_is_refused(tmp_path):
    path = write_examples(tmp_path / "a.tfrecord", example([0, 0, 1]))
    with pytest.raises(DataError, match="label 0, 0, 1, one-hot"):
        labels(path)
