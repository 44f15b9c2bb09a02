import pytest

from library.dataset.manifest import read_manifest
from library.dataset.remote import find_in_url, is_remote, local_folder, read_url
from library.errors import DataError
from tests.conftest import write_colours

pytest.importorskip("fsspec")


def main(*arguments):
    import convert_dataset

    convert_dataset.main(list(map(str, arguments)))


def test_a_remote_tree_is_found_and_read(tmp_path):
    write_colours(tmp_path / "images", 2)
    files = {file.name: file for file in find_in_url(f"file://{tmp_path}/images/")}
    assert len(files) == 6
    content = (tmp_path / "images" / "red" / "000.png").read_bytes()
    assert files["red/000.png"].label == "red"
    assert read_url(files["red/000.png"].place[1]) == content


def test_shards_go_to_a_url_and_classes_come_from_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colours(tmp_path / "train", 3)
    write_colours(tmp_path / "test", 2)
    for split in ("train", "test"):
        source, there = f"file://{tmp_path}/{split}", f"file://{tmp_path}/out/{split}"
        main("--dataset_dir", source, "--tfrecord_dir", there)
    assert f"file://{tmp_path}/out/test: test holds 6 images" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out" / "test", "test").examples == 6
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "orange")
    with pytest.raises(DataError, match="the class 'orange' is not among the classes of"):
        main("--dataset_dir", source, "--tfrecord_dir", there)


def test_an_unknown_store_and_an_empty_one_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"nonsense://x: Protocol not known"):
        list(find_in_url("nonsense://x"))
    with pytest.raises(DataError, match="there is nothing at"):
        list(find_in_url(f"file://{tmp_path}/nowhere"))


def test_a_url_is_told_from_a_folder():
    assert is_remote("gs://bucket/images")
    assert not is_remote("dataset/train")
    assert local_folder("gs://a/b/train").name == "train"
    assert local_folder("gs://a/b/train") != local_folder("gs://c/b/train")
