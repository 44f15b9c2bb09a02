import os

import pytest
from hypothesis import given
from hypothesis import strategies as some

from library.dataset.locations import FileLocation, NoLocation
from library.dataset.sources.base import is_ignored
from library.dataset.sources.folder import find_in_folder
from library.errors import DataError


def write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bytes")


def found(root, **options):
    return {file.name: file.label for file in find_in_folder(root, **options)}


def test_a_tree_of_any_depth(tmp_path):
    write(tmp_path, "cat/1.jpg", "cat/a/b/c/2.png", "dog/3", "train.manifest.json", "README.md")
    assert found(tmp_path) == {"cat/1.jpg": "cat", "cat/a/b/c/2.png": "cat", "dog/3": "dog"}


def test_a_class_folder_without_images_is_refused(tmp_path):
    write(tmp_path, "cat/1.jpg", "dog/.hidden")
    with pytest.raises(DataError, match=r"the class folder .*/dog holds no images"):
        found(tmp_path)


def test_the_folder_of_the_shards_is_not_looked_into(tmp_path):
    write(tmp_path, "cat/1.jpg", "shards/2.jpg")
    assert found(tmp_path, exclude=tmp_path / "shards") == {"cat/1.jpg": "cat"}


def test_links_that_lead_back_end(tmp_path):
    write(tmp_path, "cat/1.jpg")
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "cat" / "self").symlink_to("self")
    (tmp_path / "cat" / "gone").symlink_to("nowhere")
    files = {file.name: file for file in find_in_folder(tmp_path)}
    assert sorted(files) == ["cat/1.jpg", "cat/gone", "cat/self"]
    assert files["cat/gone"].location == NoLocation("No such file or directory")


def test_links_lead_nowhere_outside_unless_they_are_to_be_followed(tmp_path):
    write(tmp_path, "in/cat/1.jpg", "in/cat/a/2.jpg", "outside/3.jpg", "in-too/4.jpg")
    root = tmp_path / "in"
    (root / "cat" / "near.jpg").symlink_to("a/2.jpg")
    (root / "cat" / "far.jpg").symlink_to(tmp_path / "outside" / "3.jpg")
    (root / "cat" / "beside.jpg").symlink_to("../../in-too/4.jpg")
    # The folder itself may be a link, and be reached through others.
    (tmp_path / "link").symlink_to("in")
    for place in (root, tmp_path / "link", tmp_path / "outside" / ".." / "link"):
        files = {file.name: file.location for file in find_in_folder(place)}
        for name in ("cat/far.jpg", "cat/beside.jpg"):
            with pytest.raises(ValueError, match="--follow_links"):
                files.pop(name).read()
        assert {type(each) for each in files.values()} == {FileLocation}
        assert sorted(files) == ["cat/1.jpg", "cat/a/2.jpg", "cat/near.jpg"]
    (root / "dog").symlink_to("../outside")
    with pytest.raises(DataError, match=r"link .*in/dog leads out of .*in, to .*/outside: copy"):
        found(root)
    followed = {file.name: file.location for file in find_in_folder(root, follow_links=True)}
    assert followed["dog/3.jpg"].read() == followed["cat/far.jpg"].read() == b"bytes"
    (root / ".hidden").symlink_to("../outside")
    (root / "dog").unlink()
    assert len(found(root)) == 5


def test_a_pipe_is_never_read(tmp_path):
    write(tmp_path, "cat/1.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe")
    files = {file.name: file for file in find_in_folder(tmp_path)}
    assert isinstance(files["cat/pipe"].location, NoLocation)


def test_an_image_beside_the_class_folders_is_left_out_with_the_reason(tmp_path):
    write(tmp_path, "cat/1.jpg", "2.jpg")
    files = {file.name: file for file in find_in_folder(tmp_path)}
    assert isinstance(files["2.jpg"].location, NoLocation)


def test_a_folder_that_can_not_be_read_is_one_line(tmp_path):
    write(tmp_path, "file")
    with pytest.raises(DataError, match="can't be read: Not a directory"):
        found(tmp_path / "file")


names = some.text(
    some.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: not is_ignored(name) and len(name.encode()) < 200)


@given(some.sets(names, min_size=1, max_size=5))
def test_any_name_is_found_as_it_is(tmp_path_factory, classes):
    root = tmp_path_factory.mktemp("names")
    write(root, *(f"{name}/{name}.jpg" for name in classes))
    expected = {f"{name}/{name}.jpg": name for name in classes}
    assert found(root) == expected


def test_a_name_that_is_not_utf8(tmp_path):
    write(tmp_path, os.fsdecode(b"\xff\xfe/\xe9.jpg"))
    assert found(tmp_path) == {"\udcff\udcfe/\udce9.jpg": "\udcff\udcfe"}


def test_a_class_may_have_the_name_of_a_systems_file(tmp_path):
    write(tmp_path, "Thumbs.db/1.jpg", "cat/2.jpg", "cat/Thumbs.db", "__MACOSX/cat/3.jpg")
    assert found(tmp_path) == {"Thumbs.db/1.jpg": "Thumbs.db", "cat/2.jpg": "cat"}
