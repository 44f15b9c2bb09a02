import gzip
import os
import re
import shutil
import tarfile
import zipfile

import pytest

from library.dataset.locations import NoLocation
from library.errors import DataError
from library.logging import log_once
from library.prediction.image_paths import find_images
from tests.helpers.foreign_records import write_examples


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.jpg", "in/a", "in/deep/er/c.png", "in/.hidden", "in/Thumbs.db", "in/.d/e"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty").mkdir()
    return tmp_path


def found(*paths):
    return {each.name: each.location.read().decode() for each in find_images(paths)}


def test_find_images_in_files_and_folders(tree):
    assert list(found("in/deep/er/c.png", "in")) == ["in/deep/er/c.png", "in/a", "in/b.jpg"]
    assert [each.name for each in find_images(["in", "in/b.jpg"])][-2:] == [
        *["in/deep/er/c.png", "in/b.jpg"]
    ]
    assert found("in")["in/b.jpg"] == "in/b.jpg"


@pytest.mark.parametrize("name", ["in.zip", "in.tar", "in.tar.gz"])
def test_find_images_in_archives(tree, name):
    if name == "in.zip":
        with zipfile.ZipFile(name, "w") as archive:
            for each in ("a.png", "deep/c.png", ".hidden", "__MACOSX/a.png"):
                archive.writestr(each, each)
    else:
        with tarfile.open(name, "w:gz" if name.endswith("gz") else "w") as archive:
            for each in ("in/a", "in/deep/er/c.png"):
                archive.add(each, each.replace("in/a", "a.png").replace("in/deep/er", "deep"))
    names = [each.name for each in find_images([name])]
    assert names == [f"{name}/a.png", f"{name}/deep/c.png"]
    assert list(found(f"{name}/deep")) == [f"{name}/deep/c.png"]
    assert list(found(f"{name}/deep/c.png")) == [f"{name}/deep/c.png"]
    with pytest.raises(DataError, match=r"in.*/dep "):
        find_images([f"{name}/dep"])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.jpg", ["in/b.jpg"]),
        ("in/*", ["in/a", "in/b.jpg", "in/deep/er/c.png"]),
        ("in/?", ["in/a"]),
        ("in/[ab]*", ["in/a", "in/b.jpg"]),
        ("in/**/*.png", ["in/deep/er/c.png"]),
        ("in/**", ["in/a", "in/b.jpg", "in/deep/er/c.png"]),
        ("i*/b.jpg", ["in/b.jpg"]),
        ("in/*/er", ["in/deep/er/c.png"]),
    ],
)
def test_find_images_by_pattern(tree, pattern, names):
    for each in ("in/b.txt", "in/@eaDir/b.png"):
        (tree / each).parent.mkdir(exist_ok=True)
        (tree / each).write_text(each)
    assert [each.name for each in find_images([pattern])] == names
    assert list(found(f"{tree}/{pattern}")) == [f"{tree}/{each}" for each in names]


def test_path_that_looks_like_a_pattern_is_itself(tree):
    for name in ("in/a*.jpg", "in/[b].jpg", "in/b?"):
        (tree / name).write_text(name)
    assert list(found("in/a*.jpg", "in/[b].jpg", "in/b?")) == ["in/a*.jpg", "in/[b].jpg", "in/b?"]


def test_pattern_without_match_is_refused(tree):
    for pattern in ("in/*.gif", "nowhere/**/*.jpg", "in/[0-9]*"):
        with pytest.raises(DataError, match=re.escape(f"no file or folder matches {pattern}")):
            find_images([pattern])
    with pytest.raises(DataError, match="there are no files"):
        find_images(["in/*.tfrecord"])


def test_pattern_may_name_tables_and_archives(tree):
    (tree / "list.csv").write_text("FILE\nin/a\n")
    shutil.make_archive("in", "zip", "in/deep")
    assert [each.name for each in find_images(["l*.csv"])] == ["in/a"]
    assert [each.name for each in find_images(["*.zip"])] == ["in.zip/er/c.png"]


def test_sidecars_in_folders_are_ignored_and_counted(tree, caplog):
    caplog.set_level("INFO")
    log_once.cache_clear()
    for name in ("in/b.txt", "in/deep/c.json"):
        (tree / name).write_text(name)
    assert list(found("in")) == ["in/a", "in/b.jpg", "in/deep/er/c.png"]
    assert "in: ignored 2 files" in caplog.text
    assert [each.name for each in find_images(["in/b.txt"])] == ["in/b.txt"]


def test_find_images_in_a_csv_file(tree):
    (tree / "list.csv").write_text("label,File\ncat,in/a\n\n,in/none.png\n")
    files = list(find_images(["list.csv"]))
    assert [each.name for each in files] == ["in/a", "in/none.png"]
    assert files[0].location.read() == b"in/a"
    with pytest.raises(ValueError, match="No such file"):
        files[1].location.read()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("name,label\na,b\n", r"list.csv .*FILE.*name, label"),
        ("FILE,LABEL\n,cat\n", "list.csv, line 2"),
        ("FILE\n", "list.csv "),
    ],
)
def test_find_images_refuses_a_wrong_csv_file(tree, content, text):
    (tree / "list.csv").write_text(content)
    with pytest.raises(DataError, match=text):
        list(find_images(["list.csv"]))


@pytest.mark.parametrize("columns", [("pic",), ("pic", "kind"), ("part", "pic", "kind")])
def test_find_images_in_named_columns(tree, columns):
    (tree / "list.csv").write_text("File;pic\nx;in/a\n", encoding="utf-8")
    assert [each.name for each in find_images(["list.csv"], columns)] == ["in/a"]
    with pytest.raises(DataError, match="has no column 'other'"):
        find_images(["list.csv"], ("other",))


def test_find_images_in_a_list_without_header(tree):
    (tree / "list.csv").write_text("in/b.jpg\nin/deep/er/c.png\n", encoding="utf-8")
    assert [each.name for each in find_images(["list.csv"])] == ["in/b.jpg", "in/deep/er/c.png"]


def test_find_images_refuses_missing_and_empty_paths(tree):
    with pytest.raises(DataError, match="in/nothing"):
        find_images(["in", "in/nothing"])
    with pytest.raises(DataError, match="in/a/b"):
        find_images(["in/a/b"])
    with pytest.raises(DataError, match="empty "):
        find_images(["in", "empty"])
    with pytest.raises(DataError, match="a path is empty"):
        find_images(["in", ""])


def test_find_images_never_opens_special_files(tree):
    os.mkfifo(tree / "in" / "pipe")
    (tree / "in" / "loop").symlink_to("loop")
    (tree / "in" / "up").symlink_to("..")
    files = {each.name: each.location for each in find_images(["in"])}
    assert isinstance(files["in/pipe"], NoLocation)
    assert isinstance(files["in/loop"], NoLocation)
    assert not any("up" in name for name in files)


def test_find_images_at_urls(tree):
    pytest.importorskip("fsspec")
    url = f"file://{tree}"
    names = [f"{url}/in/{each}" for each in ("a", "b.jpg", "deep/er/c.png")]
    assert list(found(f"{url}/in/")) == names
    assert found(names[2]) == {names[2]: "in/deep/er/c.png"}
    (tree / "t.csv").write_text(f"FILE,x\nin/a,1\n{names[1]},2\n")
    assert list(found(f"{url}/in/*.jpg")) == [f"{url}/in/b.jpg"]
    assert list(found(f"{url}/**/*.png")) == [f"{url}/in/deep/er/c.png"]
    with pytest.raises(DataError, match="no file or folder matches"):
        find_images([f"{url}/in/*.gif"])
    for table in ("t.csv", f"{url}/t.csv"):
        assert found(table) == {"in/a": "in/a", names[1]: "in/b.jpg"}
    for each in ("nowhere", "nowhere.csv"):
        with pytest.raises(DataError, match=f"{url}/{each}"):
            find_images([f"{url}/{each}"])
    with pytest.raises(DataError, match="download it first"):
        find_images([f"{url}/in.zip"])
    with pytest.raises(DataError, match=f"{url}/empty "):
        find_images([f"{url}/empty"])


def test_records_need_no_label(tmp_path):
    from tests.helpers.foreign_records import write_examples

    path = write_examples(tmp_path / "a-00000-of-00001", {"image": b"1"}, {"image": b"2"})
    assert list(found(str(path)).values()) == ["1", "2"]
    assert list(found(str(tmp_path / "a-*")).values()) == ["1", "2"]


@pytest.mark.parametrize("name", ["a.tfrecord.gz", "a"])
def test_images_of_compressed_records_are_read(tmp_path, name):
    path = tmp_path / name
    write_examples(path, {"image": b"one", "label": 1}, {"image": b"two", "label": 2})
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert list(found(str(path)).values()) == ["one", "two"]
