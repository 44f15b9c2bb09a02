import re
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as some

from library.dataset.sources.base import NO_CLASS, label_of
from library.dataset.sources.find import exists, find_files
from library.errors import DataError


def found(source):
    return {file.name: file.label for file in find_files(source)}


def test_the_first_folder_is_the_class():
    assert label_of("cat/1.jpg") == "cat"
    assert label_of("cat/indoors/dark/1.jpg") == "cat"


def test_what_is_ours_or_the_systems_is_no_image():
    for name in (
        "train_00000-of-00008.tfrecord",
        "train.manifest.json",
        "train.rejected.csv",
        "README.md",
        "cat/.DS_Store",
        "cat/Thumbs.db",
        ".train.converting/00000.tfrecord",
        "__MACOSX/cat/1.jpg",
        "cat/train_00000-of-00008.tfrecord",
    ):
        assert label_of(name) is None, name


def test_an_image_beside_the_class_folders_has_no_class():
    assert label_of("1.JPG") == NO_CLASS


def test_a_source_that_is_not_there_or_of_no_kind_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: put images at"):
        found(tmp_path / "nowhere")
    (tmp_path / "a.docx").write_bytes(b"text")
    with pytest.raises(DataError, match=r"a\.docx"):
        found(tmp_path / "a.docx")
    assert not exists(tmp_path / "nowhere")
    assert exists(tmp_path)


@pytest.mark.parametrize("name", ["a.zip/train", "a.tar.gz", "train*.tfrecord"])
def test_archives_and_records_at_a_url_are_refused(name):
    with pytest.raises(DataError, match=f"gs://bucket/{re.escape(name)}: "):
        find_files(f"gs://bucket/{name}")


names = some.text(
    some.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
trees = some.dictionaries(
    some.lists(names, min_size=1, max_size=4).map("/".join), some.binary(max_size=9), max_size=8
)


@given(trees)
def test_any_tree_is_the_same_in_a_folder_and_in_archives(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("trees")
    # A path can't be a file and a folder at once.
    paths = [path for path in tree if not any(other.startswith(f"{path}/") for other in tree)]
    with (
        zipfile.ZipFile(root / "a.zip", "w") as zipped,
        tarfile.open(root / "a.tar", "w") as tar,
        tarfile.open(root / "b.tar.gz", "w:gz", compresslevel=1) as compressed,
    ):
        for path in paths:
            file = root / "folder" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tree[path])
            zipped.write(file, f"in/{path}")
            tar.add(file, f"in/{path}")
            compressed.add(file, f"in/{path}")
    expected = {
        path: (path.split("/")[0] if "/" in path else NO_CLASS, tree[path])
        for path in paths
        if label_of(path) is not None
    }
    sources = [root / each / "in" for each in ("a.zip", "a.tar", "b.tar.gz")]
    # A folder whose only files are the system's is no class anywhere but on disk.
    ours = {path.split("/")[0] for path in paths if "/" in path}
    if paths and all(any(path.startswith(f"{each}/") for path in expected) for each in ours):
        sources.append(root / "folder")
    for source in sources if paths else []:
        found = find_files(source, with_content=True)
        assert {
            file.name: (file.label, b"" if file.label == NO_CLASS else file.location.read())
            for file in found
        } == {
            name: (label, b"" if label == NO_CLASS else content)
            for name, (label, content) in expected.items()
        }
