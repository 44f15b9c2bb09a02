"""The index of foreign TFRecord files: made once, reused, and made again when a file changes."""

import os

import pytest

from library.dataset import record_index
from library.dataset.record_fields import RecordFields
from library.dataset.record_index import IndexFile, index_files
from library.errors import DataError
from library.files import sha256_of
from tests.helpers.foreign_records import image_bytes, write_examples

FIELDS = RecordFields()


def write(path, *labels, **options):
    rows = [{"image_raw": image_bytes(each), "label": each} for each in labels]
    return write_examples(path, *rows, **options)


@pytest.fixture
def ran(monkeypatch):
    """The names of the files that are indexed, in this process."""
    names = []

    def run(paths, fields):
        for path in paths:
            names.append(path.name)
            yield path, IndexFile(fields)(str(path))

    monkeypatch.setattr(record_index, "_run", run)
    return names


def index_paths(folder):
    return sorted(folder.glob(".tfrecord_index_*.json"))


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_file_is_counted_and_hashed(tmp_path, compression):
    path = write(tmp_path / "a", 3, 5, 3, compression=compression)
    found = IndexFile(FIELDS)(str(path))
    assert (found.examples, found.compression) == (3, compression)
    assert found.sha256 == sha256_of(path)
    assert found.classes == ((3, None, 2, 0), (5, None, 1, 1))
    assert found.is_conformant


def test_empty_file_has_no_examples(tmp_path):
    (tmp_path / "a").touch()
    assert IndexFile(FIELDS)(str(tmp_path / "a")).examples == 0


def test_files_are_indexed_in_other_processes(tmp_path):
    paths = [write(tmp_path / name, 0) for name in "abc"]
    found = index_files(paths, FIELDS)
    assert list(found) == paths
    assert [each.examples for each in found.values()] == [1, 1, 1]


def test_index_is_reused_until_a_file_changes(tmp_path, ran):
    paths = [write(tmp_path / name, 0) for name in "ab"]
    first = index_files(paths, FIELDS)
    assert (index_files(paths, FIELDS), ran) == (first, ["a", "b"])
    write(paths[1], 0, 1)
    assert index_files(paths, FIELDS)[paths[1]].examples == 2
    os.utime(paths[0], ns=(1, 1))
    assert index_files(paths, FIELDS)[paths[0]].sha256 == first[paths[0]].sha256
    assert ran == ["a", "b", "b", "a"]
    index_files(paths, RecordFields(is_multi_label=True))
    assert len(index_paths(tmp_path)) == 2


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace("0", "1")])
def test_damaged_index_is_made_again(tmp_path, ran, damage):
    path = write(tmp_path / "a", 0)
    first = index_files([path], FIELDS)
    (index,) = index_paths(tmp_path)
    index.write_text(damage(index.read_text()))
    assert index_files([path], FIELDS) == first
    assert ran == ["a", "a"]


def test_index_of_read_only_folder_is_in_the_cache(tmp_path, ran, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    path = write(tmp_path / "data" / "a", 0)
    index_files([path], FIELDS)
    index_files([path], FIELDS)
    assert ran == ["a"]
    assert not index_paths(tmp_path / "data")
    assert list((tmp_path / "cache").rglob(".tfrecord_index_*.json"))


@pytest.mark.parametrize(
    ("image", "reason"),
    [(b"text", "is not a JPEG"), (image_bytes()[:-40], "damaged|truncated"), (b"", "no image")],
)
def test_unusable_record_is_named_and_the_others_are_kept(tmp_path, ran, image, reason):
    good = write(tmp_path / "a", 0)
    rows = [{"image": each, "label": 0} for each in (image_bytes(), image)]
    bad = write_examples(tmp_path / "b", *rows)
    with pytest.raises(DataError, match=rf"/b: record 1 .*({reason})"):
        index_files([good, bad], FIELDS)
    index_files([good], FIELDS)
    assert ran == ["a", "b"]


def test_negative_label_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"/a: record 1 has the label -1"):
        IndexFile(FIELDS)(str(write(tmp_path / "a", 0, -1)))
