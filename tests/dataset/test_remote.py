import pytest

from library.dataset.manifest import read_manifest
from library.dataset.sources.remote import find_in_url
from library.dataset.storage import read_url
from library.errors import DataError, UnreachableError, UserError
from tests.conftest import write_colors

fsspec = pytest.importorskip("fsspec")


def main(*arguments):
    import convert_dataset

    convert_dataset.main(list(map(str, arguments)))


def test_a_remote_tree_is_found_and_read(tmp_path):
    write_colors(tmp_path / "images", 2)
    files = {file.name: file for file in find_in_url(f"file://{tmp_path}/images/")}
    assert len(files) == 6
    content = (tmp_path / "images" / "red" / "000.png").read_bytes()
    assert files["red/000.png"].label == "red"
    assert read_url(files["red/000.png"].location.url) == content


def test_shards_go_to_a_url_and_classes_come_from_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "train", 3)
    write_colors(tmp_path / "test", 2)
    for split in ("train", "test"):
        source, there = f"file://{tmp_path}/{split}", f"file://{tmp_path}/out/{split}"
        main("--dataset_dir", source, "--tfrecord_dir", there)
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "out/test: " in each]
    assert "6 images" in line
    assert read_manifest(tmp_path / "out" / "test", "test").examples == 6
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "orange")
    with pytest.raises(DataError, match="the class 'orange' is not among the classes of"):
        main("--dataset_dir", source, "--tfrecord_dir", there)


def test_an_empty_store_is_one_line(tmp_path):
    with pytest.raises(DataError, match="there is nothing at"):
        list(find_in_url(f"file://{tmp_path}/nowhere"))


def test_a_table_at_a_url_is_converted_as_a_local_one(tmp_path, capsys):
    write_colors(tmp_path / "images", 4)
    names = [path.relative_to(tmp_path) for path in sorted(tmp_path.glob("*/*/*"))]
    rows = [f"train,{name},{name.parts[1]}\n" for name in names]
    # One by its URL; and one that is not there.
    rows[5] = f"train,file://{tmp_path}/{names[5]},green\n"
    (tmp_path / "images.csv").write_text("".join([*rows, "train,images/red/9.png,red\n"]))
    for folder, source in (("a", tmp_path), ("b", f"file://{tmp_path}")):
        main(
            "--dataset_dir", f"{source}/images.csv/train", "--tfrecord_dir", tmp_path / folder,
            "--max_bad_fraction", 0.1,
        )  # fmt: skip
    local, remote = (read_manifest(tmp_path / each, "train") for each in ("a", "b"))
    assert [each.sha256 for each in remote.shards] == [each.sha256 for each in local.shards]
    assert local.examples == 12
    left_out = [(each["file"], each["reason"]) for each in remote.rejected]
    assert left_out == [("images/red/9.png", "can't be read: there is no such file")]
    page = tmp_path / "page.html"
    main("inspect", "--dataset_dir", f"file://{tmp_path}/images.csv", "--report", page)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "12"] in lines


def test_a_split_at_a_url_is_verified(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "train", 3)
    url = f"file://{tmp_path}/out/train"
    main("--dataset_dir", tmp_path / "train", "--tfrecord_dir", url)
    main("--verify", "--dataset_dir", tmp_path / "train", "--tfrecord_dir", url)
    verified = capsys.readouterr().err.splitlines()[-1]
    assert url in verified
    assert f"{tmp_path}/cache/image-classification-fetched-" in verified


def test_a_folder_that_must_not_be_listed_is_not_left_out_in_silence(tmp_path, monkeypatch):
    write_colors(tmp_path / "images", 2)
    kind = fsspec.get_filesystem_class("file")
    whole = kind.ls

    def refuse(self, path, **options):
        if path.endswith("green"):
            raise PermissionError("no")
        return whole(self, path, **options)

    monkeypatch.setattr(kind, "ls", refuse)
    with pytest.raises(DataError, match=r"images/green may not be read by you"):
        list(find_in_url(f"file://{tmp_path}/images"))


def test_a_place_that_can_not_be_written_to_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "train", 3)
    (tmp_path / "out").write_text("in the way")
    url = f"file://{tmp_path}/out/train"
    with pytest.raises(UserError, match=f"{url} can't be written: "):
        main("--dataset_dir", tmp_path / "train", "--tfrecord_dir", url)


def test_a_training_split_that_can_not_be_asked_for_stops_the_conversion(tmp_path, monkeypatch):
    """Else the other split's classes would be numbered by what is in it alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_colors(tmp_path / "test", 2)

    def fail(self, path, **options):
        raise ConnectionError("reset by peer")

    kind = fsspec.get_filesystem_class("file")
    for name in ("cat_file", "info"):
        monkeypatch.setattr(kind, name, fail)
    with pytest.raises(UnreachableError, match=r"train.manifest.json can't be read: reset by peer"):
        main("--dataset_dir", tmp_path / "test", "--tfrecord_dir", f"file://{tmp_path}/out/test")
