import shutil

import pytest

from library.dataset.splits import read_split, read_splits
from library.errors import DataError
from tests.conftest import convert, write_colors


def test_splits_come_in_the_order_asked_for(colors):
    test, train = read_splits(colors, "test", "train")
    assert (test.examples, train.examples) == (18, 60)
    assert train.classes == ("blue", "green", "red")


def test_a_missing_split_names_the_command(tmp_path):
    with pytest.raises(DataError, match=r"python convert_dataset.py --dataset_dir \S+/train"):
        read_splits(tmp_path, "train")


def test_one_class_an_image_here_and_several_there_is_refused(colors, patches, tmp_path):
    shutil.copytree(colors / "train", tmp_path / "train")
    shutil.copytree(patches / "test", tmp_path / "test")
    with pytest.raises(DataError, match=r"test is multi-label.*--label_separator"):
        read_splits(tmp_path, "train", "test")


def test_one_split_alone_and_a_folder_with_a_slash_at_its_end(colors):
    (train,) = read_splits(f"{colors}/", "train")
    assert train == read_split(colors / "train", "train")
    with pytest.raises(DataError, match=r"apart/train.manifest.json is missing"):
        read_split("apart", "train")


def test_a_url_is_read_through_its_store(monkeypatch):
    def lack(protocol):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("fsspec.get_filesystem_class", lack)
    with pytest.raises(DataError, match=r"gs://bucket/data/train/train.manifest.json needs a pa"):
        read_splits("gs://bucket/data", "train")


def test_other_classes_in_another_split_are_named(colors, tmp_path):
    shutil.copytree(colors / "train", tmp_path / "train")
    write_colors(tmp_path / "images", 2)
    (tmp_path / "images" / "red").rename(tmp_path / "images" / "rot")
    convert(tmp_path / "images", tmp_path / "apart", "validation")
    shutil.copytree(tmp_path / "apart" / "validation", tmp_path / "validation")
    with pytest.raises(DataError, match=r"different classes \(only one has 'red', 'rot'\)"):
        read_splits(tmp_path, "train", "validation")
