import pytest

from library.dataset.sources import NO_CLASS, find_files, is_there, label_of
from library.errors import DataError


def found(source, **options):
    return {file.name: file.label for file in find_files(source, **options)}


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
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: put images at"):
        found(tmp_path / "nowhere")
    (tmp_path / "a.docx").write_bytes(b"text")
    with pytest.raises(DataError, match=r"a.docx is a file, but no .zip"):
        found(tmp_path / "a.docx")
    assert not is_there(tmp_path / "nowhere")
    assert is_there(tmp_path)
