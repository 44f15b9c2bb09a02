import pytest

from library.dataset.records import Record, frame
from library.dataset.sources.tfrecords import find_in_shards
from library.errors import DataError


def write(path, *records):
    path.write_bytes(b"".join(frame(record) for record in records))
    return path


ONE = Record(b"one", 1, 1, 0, "cat", "cat/1.jpg")
TWO = Record(b"two", 1, 1, 1, "", "")


def test_each_record_is_a_file_of_its_class(tmp_path):
    write(tmp_path / "a-0.tfrecord", ONE)
    write(tmp_path / "a-1.tfrecord", TWO, ONE)
    files = list(find_in_shards(tmp_path / "a-*"))
    assert [(file.name, file.label) for file in files] == [
        ("cat/1.jpg", "cat"),
        ("a-1.tfrecord/0", "1"),
        ("cat/1.jpg", "cat"),
    ]
    assert [file.location.read() for file in files] == [b"one", b"two", b"one"]


def test_no_files_and_a_damaged_one_are_one_line(tmp_path):
    with pytest.raises(DataError, match="there are no files"):
        list(find_in_shards(tmp_path / "a-*"))
    path = write(tmp_path / "a.tfrecord", ONE)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"a\.tfrecord: record 0 .* is truncated"):
        list(find_in_shards(path))
    with pytest.raises(DataError, match=r"train\.manifest\.json is missing"):
        list(find_in_shards(tmp_path / "train.manifest.json"))
