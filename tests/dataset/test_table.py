import os

import pytest

from library.dataset.locations import FileLocation, NoLocation, RemoteLocation
from library.dataset.sources.table import find_in_table
from library.errors import DataError


def found(path, *arguments):
    return [
        (file.name, file.label, type(file.location)) for file in find_in_table(path, *arguments)
    ]


@pytest.fixture
def table(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("1.jpg", "2.jpg", "3, x.jpg"):
        (tmp_path / "a" / name).write_bytes(b"bytes")

    def write(text):
        path = tmp_path / "images.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


ROWS = 'TRAIN,a/1.jpg,cat\nTEST,a/2.jpg,dog\nTRAIN,"a/3, x.jpg",dog\n'


@pytest.mark.parametrize("header", ["", "SET,FILE,LABEL\n", "\ufeffset, file, label\n"])
def test_rows_with_or_without_header(table, header):
    path = table(header + ROWS)
    assert found(path) == [
        ("a/1.jpg", "cat", FileLocation),
        ("a/2.jpg", "dog", FileLocation),
        ("a/3, x.jpg", "dog", FileLocation),
    ]
    assert [each[0] for each in found(path, "train")] == ["a/1.jpg", "a/3, x.jpg"]


def test_columns_may_have_other_names(table):
    path = table("id,kind,path,part\n7,cat,a/1.jpg,dev\n")
    assert found(path, "dev", ("part", "path", "kind")) == [("a/1.jpg", "cat", FileLocation)]
    assert found(path, "", ("none", "path", "kind")) == [("a/1.jpg", "cat", FileLocation)]


def test_missing_file_has_reason(table):
    path = table("FILE,LABEL\na/9.jpg,cat\n")
    assert [file.location for file in find_in_table(path)] == [
        NoLocation("No such file or directory")
    ]


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        ("", (), "has no column 'FILE' .it has: none"),
        ("a,b\n", (), "has no column 'FILE' .it has: a, b"),
        ("FILE,LABEL\n", (), "has no rows"),
        (ROWS, ("validation",), "has no rows of the set 'validation'"),
        ("FILE,LABEL\na/1.jpg\n", (), "line 2: has too few columns"),
        ("FILE,LABEL\na/1.jpg,\n", (), "line 2: a file or a label is missing"),
        (ROWS, ("", ("one",)), "names 1 column,"),
    ],
)
def test_malformed_table_is_refused_by_line(table, text, arguments, reason):
    with pytest.raises(DataError, match=reason):
        found(table(text), *arguments)


def test_remote_table_has_relative_files_and_urls(table, tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "b.jpg").write_bytes(b"more bytes")
    table(f"{ROWS}TRAIN,file://{tmp_path}/b.jpg,cat\nTRAIN,a/9.jpg,cat\nTRAIN,../../a/1.jpg,cat\n")
    url = f"file://{tmp_path}/images.csv"
    files = list(find_in_table(url, "train"))
    assert [(each.name, each.size) for each in files[:3]] == [
        ("a/1.jpg", 5),
        ("a/3, x.jpg", 5),
        (f"file://{tmp_path}/b.jpg", 10),
    ]
    assert files[1].location.read() == b"bytes"
    assert files[2].location.read() == b"more bytes"
    assert {type(each.location) for each in files[3:]} == {NoLocation}
    with pytest.raises(DataError, match=rf"{url} has no rows of the set 'validation'"):
        list(find_in_table(url, "validation"))
    with pytest.raises(DataError, match=r"there is no file://.*/other.csv, or no bucket"):
        list(find_in_table(f"file://{tmp_path}/other.csv"))


def test_local_table_may_list_urls(table, tmp_path):
    pytest.importorskip("fsspec")
    path = table(f"TRAIN,a/1.jpg,cat\nTRAIN,file://{tmp_path}/a/2.jpg,dog\nTRAIN,a/3.jpg,dog\n")
    assert sorted(found(path)) == [
        ("a/1.jpg", "cat", FileLocation),
        ("a/3.jpg", "dog", NoLocation),
        (f"file://{tmp_path}/a/2.jpg", "dog", RemoteLocation),
    ]


def test_remote_rows_are_looked_up_in_batches(table, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setattr("library.dataset.sources.table._BATCH", 2)
    table(ROWS)
    names = [each[0] for each in found(f"file://{tmp_path}/images.csv")]
    assert names == ["a/1.jpg", "a/2.jpg", "a/3, x.jpg"]


def test_training_means_train(table):
    path = table("training,a/1.jpg,cat\nvalidation,a/2.jpg,dog\n")
    assert found(path, "train") == [("a/1.jpg", "cat", FileLocation)]


def test_label_separator_makes_multi_label(table):
    path = table("TRAIN,a/1.jpg,dog | cat|dog\nTRAIN,a/2.jpg,\n")
    assert [each[1] for each in found(path, "train", (), "|")] == [("cat", "dog"), ()]
    # Without one, a cell is one class, whatever is in it.
    with pytest.raises(DataError, match="line 2: a file or a label is missing"):
        found(path)
    with pytest.raises(DataError, match=r"line 1: 'cat\|'"):
        found(table("TRAIN,a/1.jpg,cat|\n"), "", (), "|")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_row_that_names_no_regular_file_is_not_read(table, tmp_path, kind):
    path = table("TRAIN,a/odd,cat\n")
    if kind == "pipe":
        os.mkfifo(tmp_path / "a" / "odd")
    elif kind == "device":
        (tmp_path / "a" / "odd").symlink_to("/dev/zero")
    else:
        (tmp_path / "a" / "odd").mkdir()
    (file,) = find_in_table(path)
    assert file.location == NoLocation("it is not a regular file")
    # Also if it becomes one after it was found.
    with pytest.raises(OSError, match=r"not a regular file|directory"):
        FileLocation(str(tmp_path / "a" / "odd")).read()
