import json
import os
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import convert_dataset
from library.dataset.images import ImageOptions
from library.dataset.manifest import (
    Manifest,
    Shard,
    check_hashes,
    describe_split,
    manifest_path,
    read_manifest,
    read_manifest_file,
    shard_name,
    write_manifest,
)
from library.dataset.options import read_image_options
from library.dataset.records import parse_record
from library.dataset.splits import read_splits
from library.dataset.unconverted import read_unconverted
from library.errors import DataError
from library.files import sha256_of
from tests.conftest import ROOT, convert, write_colors
from tests.helpers.converting import OPTIONS, run


@pytest.fixture
def manifest(tmp_path):
    shards = []
    for number in range(2):
        path = tmp_path / shard_name("train", number, 2)
        path.write_bytes(b"records" * (number + 1))
        shards.append(Shard(path.name, 3, path.stat().st_size, sha256_of(path)))
    manifest = Manifest(tmp_path, "train", ("cat", "dog"), (4, 2), tuple(shards), {"max_edge": 9})
    write_manifest(manifest)
    return manifest


def test_manifest_round_trip(manifest):
    read = read_manifest(manifest.folder, "train")
    assert read == manifest
    assert read.examples == 6
    assert [path.name for path in read.paths] == [
        "train_00000-of-00002.tfrecord",
        "train_00001-of-00002.tfrecord",
    ]
    check_hashes(read)


def test_fingerprint_changes_with_bytes_and_classes(manifest):
    first, second = manifest.shards
    others = [
        replace(manifest, shards=(second, first)),
        replace(manifest, shards=(first,)),
        replace(manifest, classes=("dog", "cat")),
        replace(manifest, shards=(first, replace(second, sha256="0" * 64))),
    ]
    assert len({manifest.fingerprint, *(each.fingerprint for each in others)}) == 5
    assert replace(manifest, settings={"source": "elsewhere"}).fingerprint == manifest.fingerprint


def test_missing_manifest_names_command(tmp_path):
    folder = tmp_path / "my data"
    with pytest.raises(DataError, match=r"python convert_dataset\.py") as caught:
        read_manifest(folder, "train")
    assert str(caught.value).endswith(
        f"--dataset_dir '{folder}' --tfrecord_filename train --tfrecord_dir '{folder}'"
    )
    # The images of the sample lie in an archive.
    (tmp_path / "sample.zip").touch()
    with pytest.raises(
        DataError, match=r"sample.zip/test --tfrecord_filename test --tf\w+ .*/test$"
    ):
        read_manifest(tmp_path / "sample" / "test", "test")


def test_truncated_manifest_is_refused(manifest):
    path = manifest_path(manifest.folder, "train")
    content = path.read_bytes().rstrip()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"train\.manifest\.json"):
            read_manifest(manifest.folder, "train")


def read_without_hash(path):
    """The content as version 0.1 wrote it, whose values can be changed unnoticed."""
    content = json.loads(path.read_bytes())
    del content["sha256"]
    return content


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_every_flipped_bit_is_noticed_or_changes_nothing(manifest, bit):
    path = manifest_path(manifest.folder, "train")
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        with suppress(DataError):
            assert read_manifest_file(path) == manifest
            assert damaged.split() == content.split()


WRONG_SETTINGS = [
    {"max_edge": "9"},
    {"max_edge": -1},
    {"max_edge": True},
    {"quality": 0},
    {"color_space": []},
    {"background": [0, 0]},
    {"background": [0, 0, 256]},
    {"background": "\0"},
    {"max_pixels": 1e400},
    {"chroma": "422"},
    {"chroma": 444},
]


@pytest.mark.parametrize("settings", WRONG_SETTINGS, ids=str)
def test_wrong_settings_are_refused(manifest, settings):
    write_manifest(replace(manifest, settings=settings))
    with pytest.raises(DataError, match=next(iter(settings))):
        read_manifest(manifest.folder, "train")


def test_shard_listed_twice_is_refused(manifest):
    first = manifest.shards[0]
    write_manifest(replace(manifest, shards=(first, first)))
    with pytest.raises(DataError, match="twice"):
        read_manifest(manifest.folder, "train")


WRONG = {
    "format": "version 99",
    "classes": ["cat", "cat"],
    "class_counts": {"cat": 1},
    "examples": 7,
    "shards": [{"file": "../elsewhere", "examples": 6, "bytes": 1, "sha256": "0" * 64}],
    "settings": [],
    "left_out": None,
    "left_out_count": True,
}


@pytest.mark.parametrize("key", WRONG)
def test_wrong_value_is_refused(manifest, key):
    path = manifest_path(manifest.folder, "train")
    content = read_without_hash(path)
    for wrong in ({**content, key: WRONG[key]}, {k: v for k, v in content.items() if k != key}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="convert again") as caught:
            read_manifest_file(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "[" * 100_000, '{"format": 1}', "\udcff"])
def test_foreign_file_is_refused(tmp_path, content):
    path = manifest_path(tmp_path, "train")
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"train\.manifest\.json"):
        read_manifest(tmp_path, "train")


def test_folder_in_place_of_manifest_is_refused(tmp_path):
    manifest_path(tmp_path, "train").mkdir()
    with pytest.raises(DataError, match="can't be read"):
        read_manifest(tmp_path, "train")


def test_pipe_in_place_of_manifest_is_refused(tmp_path):
    os.mkfifo(manifest_path(tmp_path, "train"))
    with pytest.raises(DataError, match="not a regular file"):
        read_manifest(tmp_path, "train")


def test_read_manifest_checks_sizes_of_shards(manifest):
    path = manifest.paths[1]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train_00001-of-00002.tfrecord has 13 bytes, not the 14"):
        read_manifest(manifest.folder, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"train_00001.*can't be read: No such file"):
        read_manifest(manifest.folder, "train")


def test_check_hashes_detects_flipped_bit(manifest):
    manifest.paths[0].write_bytes(b"Records")
    with pytest.raises(DataError, match=r"train_00000-of-00002.tfrecord is damaged"):
        check_hashes(read_manifest(manifest.folder, "train"))


def test_multi_label_counts_need_not_add_up(manifest):
    multi_label = replace(manifest, is_multi_label=True, class_counts=(5, 6))
    write_manifest(multi_label)
    assert read_manifest(manifest.folder, "train") == multi_label
    path = manifest_path(manifest.folder, "train")
    content = read_without_hash(path)
    path.write_text(json.dumps({**content, "labels": "some"}))
    with pytest.raises(DataError, match="'some'"):
        read_manifest(manifest.folder, "train")
    path.write_text(json.dumps({**content, "class_counts": {"cat": 7, "dog": 0}}))
    with pytest.raises(DataError, match="examples"):
        read_manifest(manifest.folder, "train")


def test_manifest_without_labels_is_single_label(manifest):
    path = manifest_path(manifest.folder, "train")
    content = read_without_hash(path)
    del content["labels"]
    path.write_text(json.dumps(content))
    assert read_manifest(manifest.folder, "train") == manifest


def test_describe_split_has_image_options(tmp_path):
    write_colors(tmp_path / "train", 2)
    options = ("--max_edge", "12", "--background", "#010203", "--max_megapixels", "2")
    options += ("--color_space=gray", "--quality=80", "--chroma=444")
    convert(tmp_path / "train", tmp_path, "train", *options)
    (split,) = read_splits(tmp_path, "train")
    described = json.loads(json.dumps(describe_split(split)))
    assert described["examples"] == 6
    assert described["class_counts"] == {"blue": 2, "green": 2, "red": 2}
    assert described["fingerprint"] == split.fingerprint
    assert read_image_options(described["images"]) == ImageOptions(
        12, 80, "gray", (1, 2, 3), 2_000_000, "444"
    )


def test_describe_split_of_unconverted_images_keeps_size(tmp_path):
    write_colors(tmp_path / "train", 2)
    (split,) = read_unconverted(tmp_path, ["train"], "folder")
    assert read_image_options(describe_split(split)["images"]).max_edge == 0


def test_image_options_have_defaults():
    assert read_image_options({}) == ImageOptions()


@pytest.mark.parametrize("name", ["train", "multi_label"])
def test_shards_of_version_0_1_are_read(tmp_path, name):
    folder = ROOT / "tests" / "data" / "v0_1" / "shards" / name
    manifest = read_manifest(folder, "train")
    assert manifest.is_multi_label == (name == "multi_label")
    assert manifest.rejected_count == len(manifest.rejected) == (name == "train")
    options = replace(OPTIONS, num_shards=len(manifest.shards))
    again = run(folder / "train.manifest.json", tmp_path, options)
    assert again.fingerprint == manifest.fingerprint


def test_tensorflow_reads_shards_of_version_0_1():
    import tensorflow as tf

    manifest = read_manifest(ROOT / "tests" / "data" / "v0_1" / "shards" / "train", "train")
    records = tf.data.TFRecordDataset(list(map(str, manifest.paths))).map(parse_record)
    counts = dict.fromkeys(manifest.classes, 0)
    for record in records:
        counts[record["text"].numpy().decode()] += 1
        assert tf.io.decode_jpeg(record["encoded"]).shape == (12, 16, 3)
    assert tuple(counts.values()) == manifest.class_counts


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": ["cat", ["dog"]]},
        {"classes": ["cat", ""]},
        {"class_counts": {"cat": 1e400, "dog": 2}},
        {"left_out": [{"file": 3, "reason": "broken"}]},
        {"left_out": ["broken.jpg"]},
        {"more": 1},
        {"shards": [{"file": "a\0.tfrecord", "examples": 6, "bytes": 9, "sha256": "0" * 64}]},
        {"shards": [{"file": "a.tfrecord", "examples": 6, "bytes": 5, "sha256": "0" * 64}]},
    ],
    ids=str,
)
def test_wrong_entry_is_refused(manifest, wrong):
    path = manifest_path(manifest.folder, "train")
    path.write_text(json.dumps(read_without_hash(path) | wrong))
    with pytest.raises(DataError, match="convert again") as caught:
        read_manifest_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["my photos", "dataset"])
def test_folder_of_classes_without_splits_gets_the_command_that_divides_it(tmp_path, name):
    write_colors(tmp_path / name, 20)
    with pytest.raises(DataError, match=r"--split ") as caught:
        read_manifest(tmp_path / name / "train", "train")
    command = str(caught.value).partition("them: python convert_dataset.py ")[2]
    command, _, then = command.partition("; then use ")
    convert_dataset.main(shlex.split(command))
    _, data_dir = shlex.split(then)
    assert read_manifest(Path(data_dir, "train"), "train").examples > 40


def test_folder_of_splits_gets_the_command_that_converts_one(tmp_path):
    write_colors(tmp_path / "train", 2)
    with pytest.raises(DataError, match=r"--tfrecord_filename train") as caught:
        read_manifest(tmp_path / "train", "train")
    assert "--split" not in str(caught.value)
    with pytest.raises(DataError, match=r"--tfrecord_filename test"):
        read_manifest(tmp_path / "test", "test")
