from dataclasses import replace

import pytest

from library.dataset.images import ImageOptions, convert_image
from library.dataset.manifest import Manifest, Shard, read_manifest, write_manifest
from library.dataset.records import Record, frame, serialize
from library.describing.verification import CheckRecord, verify
from library.errors import DataError
from library.files import sha256_of
from tests.conftest import ROOT
from tests.dataset.test_images import colorful, saved
from tests.helpers.converting import filenames

JPEG, HEIGHT, WIDTH = convert_image(saved(colorful(), "JPEG"), ImageOptions())
GOOD = Record(JPEG, HEIGHT, WIDTH, 1, "dog", "dog/1.jpg")


def write_split(folder, *records, counts=(0, 2)):
    """Write a split of one shard."""
    path = folder / "train_00000-of-00001.tfrecord"
    path.write_bytes(b"".join(map(frame, records)))
    shard = Shard(path.name, sum(counts), path.stat().st_size, sha256_of(path))
    manifest = Manifest(folder, "train", ("cat", "dog"), counts, (shard,))
    write_manifest(manifest)
    return manifest


def test_verify_accepts_intact_split(tmp_path):
    manifest = write_split(tmp_path, GOOD, replace(GOOD, filename="dog/2.jpg"))
    verify(manifest, 1)
    assert filenames(manifest) == {"dog/1.jpg", "dog/2.jpg"}


@pytest.mark.parametrize("name", ["train", "multi_label"])
def test_verify_accepts_shards_of_version_0_1(name):
    folder = ROOT / "tests" / "data" / "v0_1" / "shards" / name
    verify(read_manifest(folder, "train"), 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": 2}, "label 2"),
        ({"label": 0}, "class 'dog'"),
        ({"width": 9}, r"JPEG of 9x\d+ pixels"),
        ({"encoded": b"rubbish"}, "JPEG"),
        ({"encoded": JPEG[: len(JPEG) // 2]}, "can't be decoded|JPEG"),
    ],
)
def test_check_record_names_source_image(changes, reason):
    wrong = serialize(replace(GOOD, **changes))
    with pytest.raises(DataError, match=reason) as caught:
        CheckRecord(("cat", "dog"))(("a.tfrecord: record 7", wrong))
    assert str(caught.value).startswith("a.tfrecord: record 7, made from dog/1.jpg, ")


def test_verify_names_wrong_record(tmp_path):
    manifest = write_split(tmp_path, GOOD, replace(GOOD, label=0))
    with pytest.raises(DataError, match=r"record 1, made from dog/1\.jpg"):
        verify(manifest, 1)


@pytest.mark.slow
def test_verify_detects_flipped_bytes(tmp_path):
    manifest = write_split(tmp_path, GOOD, GOOD)
    path = manifest.paths[0]
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 12):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"record [01] \(at byte \d+\) is damaged"):
            verify(manifest, 1)


def test_verify_compares_with_manifest(tmp_path):
    manifest = write_split(tmp_path, GOOD)
    with pytest.raises(DataError, match="1 record, not 2"):
        verify(manifest, 1)
    with pytest.raises(DataError, match=r"\(0, 2\) images per class"):
        verify(write_split(tmp_path, GOOD, GOOD, counts=(1, 1)), 1)
    manifest = write_split(tmp_path, GOOD, GOOD)
    manifest.paths[0].write_bytes(frame(GOOD) + frame(replace(GOOD, filename="dog/9.jpg")))
    with pytest.raises(DataError, match="SHA-256"):
        verify(manifest, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": (0, 2), "text": ("cat", "cow")}, "label 2"),
        ({"label": (0, 1), "text": ("cat",)}, "class 'cat'"),
    ],
)
def test_check_record_checks_multi_label_records(changes, reason):
    wrong = serialize(replace(GOOD, **changes))
    with pytest.raises(DataError, match=reason):
        CheckRecord(("cat", "dog"), is_multi_label=True)(("here", wrong))


def test_check_record_refuses_several_labels_in_single_label_split():
    right = ("here", serialize(replace(GOOD, label=(0, 1), text=("cat", "dog"))))
    assert CheckRecord(("cat", "dog"), is_multi_label=True)(right) == (0, 1)
    with pytest.raises(DataError, match="2 labels"):
        CheckRecord(("cat", "dog"))(right)
