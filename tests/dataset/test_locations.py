import zipfile

import pytest

from library.dataset.locations import (
    FileLocation,
    MemoryLocation,
    NoLocation,
    RangeLocation,
    RemoteLocation,
    StreamLocation,
    ZipLocation,
)
from library.errors import UnreachableError


@pytest.fixture
def zipped(tmp_path):
    """The location of a deflated member."""
    return write_zip(tmp_path / "a.zip", b"content" * 50)


def write_zip(path, content):
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
    location = write_zip(tmp_path / "a.zip", bytes(50_000_000))
    with pytest.raises(ValueError, match="its size"):
        location._replace(size=1000).read()


def test_huge_files_are_refused_unread(tmp_path, zipped):
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    for location in (
        FileLocation(str(path)),
        RangeLocation(str(path), 0, 2**30 + 1),
        zipped._replace(compressed_size=2**30 + 1),
        zipped._replace(size=2**30 + 1),
    ):
        with pytest.raises(ValueError, match="1,073,741,825 bytes"):
            location.read()


def test_other_locations(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert FileLocation(str(path)).read() == b"0123456789"
    assert RangeLocation(str(path), 3, 4).read() == b"3456"
    assert MemoryLocation(b"itself").read() == b"itself"
    with pytest.raises(ValueError, match="the reason"):
        NoLocation("the reason").read()
    with pytest.raises(ValueError, match="before it"):
        StreamLocation().read()


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
