import codecs
import os

import pytest

from library.dataset.locations import FileLocation, NoLocation, RemoteLocation
from library.dataset.sources.table import find_in_table
from library.errors import DataError
from library.prediction.image_paths import find_images


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
    assert found(path, "train") == [
        ("a/1.jpg", "cat", FileLocation),
        ("a/3, x.jpg", "dog", FileLocation),
    ]
    assert found(path, "test") == [("a/2.jpg", "dog", FileLocation)]


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
        (ROWS, ("",), "has sets .TEST, TRAIN.; convert each.*csv_columns FILE,LABEL"),
        ("FILE,LABEL\na/1.jpg,cat\n", ("train",), "has no column of sets.*--split"),
        ("FILE,LABEL\na/1.jpg,cat\n\na/2.jpg,\n", (), "line 4: a file or a label is missing"),
        ("filename,path,label\n", (), "has no column 'FILE'"),
        ("file,kind\n", (), "has no column 'LABEL'"),
        ("a;b\n", (), "it has: a, b"),
        ("FILE,LABEL\na/1.jpg\n", (), "line 2: has too few columns"),
        ("FILE,LABEL\na/1.jpg,\n", (), "line 2: a file or a label is missing"),
        (ROWS, ("", ("one",)), "csv_columns must name"),
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
    names = [each[0] for each in found(f"file://{tmp_path}/images.csv", "train")]
    assert names == ["a/1.jpg", "a/3, x.jpg"]


@pytest.mark.parametrize("name", ["val", "VALID", "Dev", "eval", "Validation", " val "])
@pytest.mark.parametrize("header", ["", "SET,FILE,LABEL\n"])
def test_sets_by_any_name(table, name, header):
    path = table(f"{header}Training,a/1.jpg,cat\n{name},a/2.jpg,dog\nTesting,a/1.jpg,cat\n")
    for split, file in (("train", "a/1.jpg"), ("validation", "a/2.jpg"), ("test", "a/1.jpg")):
        assert [each[0] for each in found(path, split)] == [file]
    assert found(path, "dev") == found(path, "validation")


def test_sets_without_meaning_are_names(table):
    path = table("SET,FILE,LABEL\n1,a/1.jpg,cat\n2,a/2.jpg,dog\n")
    assert [each[0] for each in found(path, "2")] == ["a/2.jpg"]
    assert len(found(path)) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", ["SET,FILE,LABEL\n", ""])
def test_table_as_programs_write_it(table, tmp_path, encoding, delimiter, end, header):
    text = header + "train,a/1.jpg,é\n\ntrain,a/2.jpg,c d\n,,\n"
    text = text.replace(",", delimiter).replace("\n", end)
    path = table("")
    if encoding == "utf-16-le-bom":
        path.write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    else:
        path.write_bytes(text.encode(encoding))
    assert [each[:2] for each in found(path, "train")] == [("a/1.jpg", "é"), ("a/2.jpg", "c d")]
    # Prediction reads the same file.
    assert [each.name for each in find_images([str(path)])] == ["a/1.jpg", "a/2.jpg"]


@pytest.mark.parametrize(
    "content", ["SET,FILE,LABEL\n".encode("utf-16-le"), b"PK\x03\x04\x00\x00\x08"]
)
def test_what_is_no_text_is_named(table, content):
    path = table("")
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"images.csv is not text in UTF-8: save it"):
        found(path)
    with pytest.raises(DataError, match=r"images.csv is not text in UTF-8: save it"):
        find_images([str(path)])


@pytest.mark.parametrize(
    "header",
    [
        *("FILE,LABEL", "label,file", '"File","Label"', " file , label ", "filename,class"),
        *("image_path,category", "File Name,labels", "id,Path,split,class", "label,class,file"),
    ],
)
def test_header_variants(table, header):
    names = [each.strip(' "').lower() for each in header.split(",")]
    cells = {"split": "train", "id": "7", "class": "cat", "label": "cat", "labels": "cat"}
    row = [cells.get(name, "cat" if name == "category" else "a/1.jpg") for name in names]
    path = table(f"{header}\n{','.join(row)}\n")
    assert found(path) == [("a/1.jpg", "cat", FileLocation)]


def test_table_without_header_or_sets(table):
    assert found(table("a/1.jpg,cat\na/2.jpg,dog\n")) == [
        ("a/1.jpg", "cat", FileLocation),
        ("a/2.jpg", "dog", FileLocation),
    ]


def test_two_columns_are_file_and_label(table):
    path = table("SET,kind,pic\nTRAIN,cat,a/1.jpg\nTEST,dog,a/2.jpg\n")
    assert [each[:2] for each in found(path, "", ("pic", "kind"))] == [
        ("a/1.jpg", "cat"),
        ("a/2.jpg", "dog"),
    ]
    with pytest.raises(DataError, match="has no column of sets"):
        found(path, "train", ("pic", "kind"))


def test_paths_of_other_systems(table, tmp_path):
    (tmp_path / "a" / "cafe\u0301.jpg").write_bytes(b"decomposed")
    (tmp_path / "a" / "th\u00e9.jpg").write_bytes(b"composed")
    (tmp_path / "b\\1.jpg").write_bytes(b"as it is")
    rows = ("a\\1.jpg", "a\\caf\u00e9.jpg", "a/the\u0301.jpg", "b\\1.jpg")
    path = table("FILE,LABEL\n" + "".join(f"{row},cat\n" for row in rows))
    contents = [each.location.read() for each in find_in_table(path)]
    assert contents == [b"bytes", b"decomposed", b"composed", b"as it is"]
    assert [each.location.read() for each in find_images([str(path)])] == contents


ROW_PER_LABEL = "SET,FILE,LABEL\ntrain,a/1.jpg,dog\ntrain,a/2.jpg,dog\ntrain,a/1.jpg,cat\n"


@pytest.mark.parametrize("spelling", ["a/1.jpg", "./a/1.jpg", "a\\1.jpg"])
def test_rows_of_one_file_are_joined_or_refused(table, spelling, caplog):
    caplog.set_level("INFO")
    path = table(ROW_PER_LABEL.replace("a/1.jpg,cat", f"{spelling},cat"))
    with pytest.raises(
        DataError, match=r"a/1.jpg is 'dog' in line 2, 'cat' in line 4: .*--label_separator"
    ):
        found(path, "train")
    assert [each[:2] for each in found(path, "train", (), "|")] == [
        ("a/2.jpg", ("dog",)),
        ("a/1.jpg", ("cat", "dog")),
    ]
    assert "1 row joined" in caplog.text


def test_repeated_row_is_taken_once(table, caplog):
    caplog.set_level("INFO")
    path = table(ROW_PER_LABEL.replace("cat", "dog"))
    assert sorted(each[0] for each in found(path, "train")) == ["a/1.jpg", "a/2.jpg"]
    assert f"{path}/train: 1 row the same" in caplog.text


def test_file_in_several_sets_is_named_once(table, caplog):
    path = table(ROW_PER_LABEL.replace("train,a/1.jpg,cat", "TEST,a/1.jpg,dog"))
    assert [each[0] for each in found(path, "train")] == ["a/2.jpg", "a/1.jpg"]
    assert [each[0] for each in found(path, "test")] == ["a/1.jpg"]
    (record,) = caplog.records
    assert (
        "1 file is in several sets, such as a/1.jpg in line 2 (train) and line 4" in record.message
    )


def test_special_file_is_never_opened(table, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (file,) = find_in_table(table("FILE,LABEL\npipe,cat\n"))
    assert isinstance(file.location, NoLocation)


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
