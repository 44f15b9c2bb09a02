import io
import tarfile
import zipfile

import pytest

from library.dataset.locations import NoLocation, StreamLocation
from library.dataset.sources.archive import find_in_archive
from library.errors import DataError

FILES = {"train/cat/1.jpg": b"one" * 99, "train/cat/a/2.png": b"", "train/dog/3.jpg": b"three"}


def write_zip(path, files=FILES, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files=FILES, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(path, inside="train", **options):
    return {f.name: f.location.read() for f in find_in_archive(path, inside, **options)}


EXPECTED = {name.removeprefix("train/"): content for name, content in FILES.items()}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zips_members_are_read_where_they_lie(tmp_path, method):
    assert contents(write_zip(tmp_path / "a.zip", method=method)) == EXPECTED


def test_a_tars_members_are_read_where_they_lie(tmp_path):
    assert contents(write_tar(tmp_path / "a.tar")) == EXPECTED


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_tar_gives_its_content_with_the_file(tmp_path, kind):
    path = write_tar(tmp_path / f"a.tar.{kind}", mode=f"w:{kind}")
    assert contents(path, with_content=True) == EXPECTED
    assert {file.location for file in find_in_archive(path, "train")} == {StreamLocation()}


def test_members_outside_the_folder_are_never_images(tmp_path):
    hostile = {"train/cat/../../../etc/1.jpg": b"", "/train/cat/2.jpg": b"", "../cat/3.jpg": b""}
    for path in (
        write_zip(tmp_path / "a.zip", {**FILES, **hostile}),
        write_tar(tmp_path / "a.tar", {**FILES, **hostile}),
    ):
        assert contents(path) == EXPECTED


def test_a_tar_that_holds_a_zip_is_a_tar(tmp_path):
    inner = write_zip(tmp_path / "a.zip").read_bytes()
    assert contents(write_tar(tmp_path / "a.tar", {"train/cat/a": inner})) == {"cat/a": inner}
    (tmp_path / "b.zip").write_bytes(b"#!/bin/unpack\n" + inner)
    assert contents(tmp_path / "b.zip") == EXPECTED


def test_links_in_a_tar_are_not_followed(tmp_path):
    path = write_tar(tmp_path / "a.tar")
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("train/cat/passwd")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    locations = {file.name: file.location for file in find_in_archive(path, "train")}
    assert isinstance(locations["cat/passwd"], NoLocation)


def test_a_folder_that_is_not_inside_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder test in .*a.zip"):
        contents(write_zip(tmp_path / "a.zip"), "test")
    with pytest.raises(DataError, match=r"a.tar is empty"):
        contents(write_tar(tmp_path / "a.tar", {}), "")


def test_an_empty_class_folder_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {**FILES, "train/bird/": b""})
    with pytest.raises(DataError, match=r"a.zip/train/bird holds no images"):
        contents(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_is_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"rubbish" * 200)
    with pytest.raises(DataError, match=r"\.(zip|tar|gz) is not a readable archive"):
        contents(path)


def test_a_zip_cut_anywhere_is_one_line_or_a_reason(tmp_path):
    whole = write_zip(tmp_path / "a.zip").read_bytes()
    path = tmp_path / "cut.zip"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"\.(zip|tar|gz) is not a readable archive"):
            contents(path)
