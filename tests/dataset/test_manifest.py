import json
from dataclasses import replace

import pytest

from library.dataset.manifest import (
    Manifest,
    Shard,
    check_hashes,
    manifest_path,
    read_manifest,
    read_manifest_file,
    shard_name,
    write_manifest,
)
from library.errors import DataError
from library.files import sha256_of


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


def test_what_was_written_is_read(manifest):
    read = read_manifest(manifest.folder, "train")
    assert read == manifest
    assert read.examples == 6
    assert [path.name for path in read.paths] == [
        "train_00000-of-00002.tfrecord",
        "train_00001-of-00002.tfrecord",
    ]
    check_hashes(read)


def test_the_fingerprint_changes_with_bytes_and_classes(manifest):
    first, second = manifest.shards
    others = [
        replace(manifest, shards=(second, first)),
        replace(manifest, shards=(first,)),
        replace(manifest, classes=("dog", "cat")),
        replace(manifest, shards=(first, replace(second, sha256="0" * 64))),
    ]
    assert len({manifest.fingerprint, *(each.fingerprint for each in others)}) == 5
    assert replace(manifest, settings={"source": "elsewhere"}).fingerprint == manifest.fingerprint


def test_a_missing_manifest_names_the_command_that_makes_it(tmp_path):
    folder = tmp_path / "my data"
    with pytest.raises(DataError, match=r"is missing; .*: python convert_dataset.py") as caught:
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


def test_a_manifest_cut_anywhere_is_one_line(manifest):
    path = manifest_path(manifest.folder, "train")
    content = path.read_bytes().rstrip()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match="is not a manifest of this project, or is damaged"):
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
def test_a_wrong_value_is_one_line(manifest, key):
    path = manifest_path(manifest.folder, "train")
    content = json.loads(path.read_bytes())
    for wrong in ({**content, key: WRONG[key]}, {k: v for k, v in content.items() if k != key}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="convert again") as caught:
            read_manifest_file(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "[" * 100_000, '{"format": 1}', "\udcff"])
def test_a_foreign_file_is_one_line(tmp_path, content):
    path = manifest_path(tmp_path, "train")
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match="is not a manifest of this project"):
        read_manifest(tmp_path, "train")


def test_a_folder_in_its_place_is_one_line(tmp_path):
    manifest_path(tmp_path, "train").mkdir()
    with pytest.raises(DataError, match="can't be read"):
        read_manifest(tmp_path, "train")


def test_missing_and_cut_shards_are_found_at_once(manifest):
    path = manifest.paths[1]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train_00001-of-00002.tfrecord has 13 bytes, not the 14"):
        read_manifest(manifest.folder, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"train_00001.*can't be read: No such file"):
        read_manifest(manifest.folder, "train")


def test_a_flipped_bit_is_found_by_its_hash(manifest):
    manifest.paths[0].write_bytes(b"Records")
    with pytest.raises(DataError, match=r"train_00000-of-00002.tfrecord is damaged"):
        check_hashes(read_manifest(manifest.folder, "train"))


def test_images_of_several_classes_are_counted_once(manifest):
    multi_label = replace(manifest, is_multi_label=True, class_counts=(5, 6))
    write_manifest(multi_label)
    assert read_manifest(manifest.folder, "train") == multi_label
    path = manifest_path(manifest.folder, "train")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "labels": "some"}))
    with pytest.raises(DataError, match="its \"labels\" are 'some', not one or several"):
        read_manifest(manifest.folder, "train")
    path.write_text(json.dumps({**content, "class_counts": {"cat": 7, "dog": 0}}))
    with pytest.raises(DataError, match="contradict each other"):
        read_manifest(manifest.folder, "train")


def test_a_manifest_from_before_there_were_several_is_of_one_class_an_image(manifest):
    path = manifest_path(manifest.folder, "train")
    content = json.loads(path.read_text())
    del content["labels"]
    path.write_text(json.dumps(content))
    assert read_manifest(manifest.folder, "train") == manifest
