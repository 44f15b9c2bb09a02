import zipfile

import pytest

from library.dataset.read_bytes import read_content
from library.errors import UnreachableError


def zipped(tmp_path, method=zipfile.ZIP_DEFLATED):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x", b"content" * 50)
        member = archive.getinfo("x")
    return path, member


def place(path, member, **changed):
    facts = {
        "offset": member.header_offset,
        "stored": member.compress_size,
        "size": member.file_size,
        "method": member.compress_type,
        "flags": 0,
    }
    return ("zipped", str(path), *(facts | changed).values())


def test_a_member_is_inflated(tmp_path):
    path, member = zipped(tmp_path)
    assert read_content(place(path, member)) == b"content" * 50


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"flags": 1}, "it is encrypted"),
        ({"method": 14}, "its compression method 14 is not supported"),
        ({"size": 3}, "its size is not that in the archive's directory"),
        ({"stored": 10**6}, "the archive is cut short"),
        ({"offset": 5}, "compressed data is damaged|cut short"),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path, changed, reason):
    path, member = zipped(tmp_path)
    with pytest.raises(ValueError, match=reason):
        read_content(place(path, member, **changed))


def test_a_bomb_swells_no_further_than_it_says(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", bytes(50_000_000))
        member = archive.getinfo("x")
    with pytest.raises(ValueError, match="its size is not"):
        read_content(place(path, member, size=1000))


def test_what_would_fill_the_memory_is_not_read(tmp_path):
    path, member = zipped(tmp_path)
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**30 + 1)
    whole = str(tmp_path / "a.jpg")
    zipped_places = [place(path, member, **{each: 2**30 + 1}) for each in ("stored", "size")]
    for each in (("file", whole), ("range", whole, 0, 2**30 + 1), *zipped_places):
        with pytest.raises(ValueError, match="its 1,073,741,825 bytes are more than 1,073,741,824"):
            read_content(each)


def test_other_places(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_content(("file", str(tmp_path / "a"))) == b"0123456789"
    assert read_content(("range", str(tmp_path / "a"), 3, 4)) == b"3456"
    assert read_content(("content", b"itself")) == b"itself"
    with pytest.raises(ValueError, match="the reason"):
        read_content(("none", "the reason"))


def test_a_place_at_a_url(tmp_path):
    pytest.importorskip("fsspec")
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_content(("remote", f"file://{tmp_path}/a")) == b"0123456789"
    # As a local file that is gone, and so one that a conversion leaves out.
    with pytest.raises(OSError, match=f"there is no file://{tmp_path}/b"):
        read_content(("remote", f"file://{tmp_path}/b"))
    # No answer of a store that says anything about a file.
    with pytest.raises(UnreachableError, match=f"file://{tmp_path} can't be read: "):
        read_content(("remote", f"file://{tmp_path}"))
