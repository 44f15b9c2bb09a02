from dataclasses import replace

import pytest

from library.dataset.images import ImageOptions, convert_image
from library.dataset.manifest import Manifest, Shard, write_manifest
from library.dataset.records import Record, frame
from library.dataset.verification import CheckRecord, read_filenames, verify
from library.errors import DataError
from library.files import sha256_of
from tests.dataset.test_images import colorful, saved

JPEG, HEIGHT, WIDTH = convert_image(saved(colorful(), "JPEG"), ImageOptions())
GOOD = Record(JPEG, HEIGHT, WIDTH, 1, "dog", "dog/1.jpg")


def split(folder, *records, counts=(0, 2)):
    """A split of one shard, with the hash of what it holds."""
    path = folder / "train_00000-of-00001.tfrecord"
    path.write_bytes(b"".join(map(frame, records)))
    shard = Shard(path.name, sum(counts), path.stat().st_size, sha256_of(path))
    manifest = Manifest(folder, "train", ("cat", "dog"), counts, (shard,))
    write_manifest(manifest)
    return manifest


def test_a_good_split_passes(tmp_path):
    manifest = split(tmp_path, GOOD, replace(GOOD, filename="dog/2.jpg"))
    verify(manifest, 1)
    assert read_filenames(manifest) == {"dog/1.jpg", "dog/2.jpg"}


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
def test_a_wrong_record_is_named_with_its_source(changes, reason):
    wrong = frame(replace(GOOD, **changes))[12:-4]
    with pytest.raises(DataError, match=reason) as caught:
        CheckRecord(("cat", "dog"))(("a.tfrecord: record 7", wrong))
    assert str(caught.value).startswith("a.tfrecord: record 7, made from dog/1.jpg, ")


def test_a_wrong_record_fails_the_split(tmp_path):
    manifest = split(tmp_path, GOOD, replace(GOOD, label=0))
    with pytest.raises(DataError, match=r"record 1, made from dog/1\.jpg"):
        verify(manifest, 1)


@pytest.mark.slow
def test_every_kind_of_flipped_byte_is_found(tmp_path):
    manifest = split(tmp_path, GOOD, GOOD)
    path = manifest.paths[0]
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 12):
        damaged = bytearray(content)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"record [01] \(at byte \d+\) is damaged"):
            verify(manifest, 1)


def test_missing_records_other_counts_and_other_bytes_are_found(tmp_path):
    manifest = split(tmp_path, GOOD)
    with pytest.raises(DataError, match="1 record, not 2"):
        verify(manifest, 1)
    with pytest.raises(DataError, match=r"\(0, 2\) images per class"):
        verify(split(tmp_path, GOOD, GOOD, counts=(1, 1)), 1)
    manifest = split(tmp_path, GOOD, GOOD)
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
def test_wrong_records_of_several_classes_are_named(changes, reason):
    wrong = frame(replace(GOOD, **changes))[12:-4]
    with pytest.raises(DataError, match=reason):
        CheckRecord(("cat", "dog"), is_multi_label=True)(("here", wrong))


def test_several_classes_are_wrong_where_one_belongs():
    right = ("here", frame(replace(GOOD, label=(0, 1), text=("cat", "dog")))[12:-4])
    assert CheckRecord(("cat", "dog"), is_multi_label=True)(right) == (0, 1)
    with pytest.raises(DataError, match="2 labels"):
        CheckRecord(("cat", "dog"))(right)
