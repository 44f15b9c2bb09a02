import io
import tarfile
import tracemalloc
import zipfile

import pytest

from library.dataset.locations import (
    FileLocation,
    MemoryLocation,
    NoLocation,
    RangeLocation,
    RemoteLocation,
    ZipLocation,
)
from library.dataset.sources import archive as archive_source
from library.dataset.sources.archive import find_in_archive
from library.dataset.sources.base import NO_CLASS
from library.errors import DataError, UnreachableError

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
def test_zip_members_are_read_in_place(tmp_path, method):
    assert contents(write_zip(tmp_path / "a.zip", method=method)) == EXPECTED


def test_tar_members_are_read_in_place(tmp_path):
    assert contents(write_tar(tmp_path / "a.tar")) == EXPECTED


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_tar_comes_with_content(tmp_path, kind):
    path = write_tar(tmp_path / f"a.tar.{kind}", mode=f"w:{kind}")
    assert contents(path) == EXPECTED


OUTSIDE = "its name leads out of the archive"


def test_members_that_lead_outside_are_rejected_by_name(tmp_path):
    hostile = {"train/cat/../../../etc/1.jpg": b"", "/train/cat/2.jpg": b"", "../cat/3.jpg": b""}
    for path in (
        write_zip(tmp_path / "a.zip", {**FILES, **hostile}),
        write_tar(tmp_path / "a.tar", {**FILES, **hostile}),
    ):
        rejected = {file.name for file in find_in_archive(path, "") if OUTSIDE in file.location}
        assert rejected == set(hostile)
        rejected = {
            file.name for file in find_in_archive(path, "train") if OUTSIDE in file.location
        }
        assert rejected == set(hostile) - {"../cat/3.jpg"}
        for file in find_in_archive(path, ""):
            assert (file.label == NO_CLASS) == (file.name in hostile)


def test_tar_that_contains_zip_is_tar(tmp_path):
    inner = write_zip(tmp_path / "a.zip").read_bytes()
    assert contents(write_tar(tmp_path / "a.tar", {"train/cat/a": inner})) == {"cat/a": inner}
    (tmp_path / "b.zip").write_bytes(b"#!/bin/unpack\n" + inner)
    assert contents(tmp_path / "b.zip") == EXPECTED


def test_tar_links_are_not_followed(tmp_path):
    path = write_tar(tmp_path / "a.tar")
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("train/cat/passwd")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    locations = {file.name: file.location for file in find_in_archive(path, "train")}
    assert isinstance(locations["cat/passwd"], NoLocation)


def test_missing_folder_in_archive_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder test in .*a.zip"):
        contents(write_zip(tmp_path / "a.zip"), "test")
    with pytest.raises(DataError, match=r"a.tar is empty"):
        contents(write_tar(tmp_path / "a.tar", {}), "")


def test_archive_refuses_empty_class(tmp_path):
    path = write_zip(tmp_path / "a.zip", {**FILES, "train/bird/": b""})
    with pytest.raises(DataError, match=r"a.zip/train/bird holds no images"):
        contents(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archive_is_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"rubbish" * 200)
    with pytest.raises(DataError, match=r"\.(zip|tar|gz) is not a readable archive"):
        contents(path)


def test_truncated_zip_is_one_line(tmp_path):
    whole = write_zip(tmp_path / "a.zip").read_bytes()
    path = tmp_path / "cut.zip"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"\.(zip|tar|gz) is not a readable archive"):
            contents(path)


@pytest.fixture
def zipped(tmp_path):
    """The location of a deflated member."""
    return write_member(tmp_path / "a.zip", b"content" * 50)


def write_member(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", content)
        member = archive.getinfo("x")
    return ZipLocation(
        str(path), member.header_offset, member.compress_size, member.file_size, True
    )


def test_zip_location_inflates_member(zipped):
    assert zipped.read() == b"content" * 50


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"size": 3}, "its size"),
        ({"compressed_size": 10**6}, "cut short"),
        ({"offset": 5}, "compressed data is damaged|cut short"),
    ],
)
def test_zip_location_refuses_wrong_directory(zipped, changed, reason):
    with pytest.raises(ValueError, match=reason):
        zipped._replace(**changed).read()


def test_zip_bomb_expands_no_further_than_declared(tmp_path):
    location = write_member(tmp_path / "a.zip", bytes(50_000_000))
    with pytest.raises(ValueError, match="its size"):
        location._replace(size=1000).read()


class Zeros:
    """A file of zeros that is never in memory."""

    def read(self, size):
        return bytes(size)


def write_large_tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode, compresslevel=1) as archive:
        for name, size, kind in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = size, kind
            archive.addfile(member, Zeros())
    return path


def test_large_member_of_compressed_tar_is_never_in_memory(tmp_path):
    large = ("train/cat/1.jpg", (1 << 26) + 1, tarfile.REGTYPE)
    path = write_large_tar(tmp_path / "a.tar.gz", large, ("train/cat/2.jpg", 9, tarfile.REGTYPE))
    tracemalloc.start()
    first, second = find_in_archive(path, "train")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "67,108,865 bytes" in first.location.reason
    assert second.location == MemoryLocation(bytes(9))
    assert peak < 1 << 23


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_huge_header_of_tar_is_refused(tmp_path, kind):
    path = write_large_tar(tmp_path / "a.tar.gz", ("train/cat/1.jpg", (1 << 20) + 1, kind))
    with pytest.raises(DataError, match=r"a\.tar\.gz is not a readable archive: .*1,048,577 bytes"):
        list(find_in_archive(path, "train"))


def test_archive_that_would_fill_the_disk_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_source, "_EXPANSION_FLOOR_BYTES", 1000)
    path = write_zip(tmp_path / "a.zip", {"train/cat/1.jpg": b"?", "train/cat/2.jpg": bytes(10**6)})
    with pytest.raises(DataError, match=r"a\.zip is refused: .*train/cat/2\.jpg .*1,000,001 bytes"):
        list(find_in_archive(path, "train"))


def test_huge_files_are_refused_unread(tmp_path, zipped):
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(2**28 + 1)
    for location in (
        FileLocation(str(path)),
        RangeLocation(str(path), 0, 2**28 + 1),
        zipped._replace(compressed_size=2**28 + 1),
        zipped._replace(size=2**28 + 1),
    ):
        with pytest.raises(ValueError, match="268,435,457 bytes"):
            location.read()


def test_other_locations(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert FileLocation(str(path)).read() == b"0123456789"
    assert RangeLocation(str(path), 3, 4).read() == b"3456"
    assert MemoryLocation(b"itself").read() == b"itself"
    with pytest.raises(ValueError, match="the reason"):
        NoLocation("the reason").read()


def test_remote_location(tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "a").write_bytes(b"0123456789")
    assert RemoteLocation(f"file://{tmp_path}/a").read() == b"0123456789"
    # Missing: rejected, like a local file.
    with pytest.raises(OSError, match=f"file://{tmp_path}/b"):
        RemoteLocation(f"file://{tmp_path}/b").read()
    # A failing store says nothing about the file.
    with pytest.raises(UnreachableError, match=f"file://{tmp_path} "):
        RemoteLocation(f"file://{tmp_path}").read()
