import tracemalloc
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as some

from library.dataset.zip_directory import read_zip_directory


def write(path, contents, method=zipfile.ZIP_DEFLATED, before=b"", comment=b""):
    with path.open("wb") as file:
        file.write(before)
    with zipfile.ZipFile(path, "a", method) as archive:
        for name, content in contents:
            archive.writestr(name, content)
        archive.comment = comment
    return path


def check(path):
    """Compare with Python's own reader."""
    with zipfile.ZipFile(path) as archive:
        expected = [
            (
                *(each.filename, each.header_offset, each.compress_size, each.file_size),
                *(each.compress_type, each.flag_bits, each.CRC),
            )
            for each in archive.infolist()
        ]
    assert list(read_zip_directory(path)) == expected


names = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(some.lists(some.tuples(names, some.binary()), max_size=5, unique_by=lambda each: each[0]))
def test_any_members_are_found_as_python_finds_them(tmp_path_factory, contents):
    check(write(tmp_path_factory.mktemp("zip") / "a.zip", contents))


def test_a_comment_and_what_stands_before(tmp_path):
    contents = [("cat/1.jpg", b"one"), ("cat/é.jpg", b"two" * 99), ("cat/", b"")]
    check(write(tmp_path / "a.zip", contents, zipfile.ZIP_STORED, comment=b"PK\5" * 20))
    check(write(tmp_path / "b.zip", contents, before=b"#!/bin/unpack\n"))


def test_numbers_that_need_eight_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 40)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = write(
        tmp_path / "a.zip", [(f"{n}", b"x" * 30 * n) for n in range(5)], zipfile.ZIP_STORED
    )
    assert b"PK\6\6" in path.read_bytes()
    check(path)


def test_a_name_that_is_not_what_it_says_keeps_its_bytes(tmp_path):
    path = write(tmp_path / "a.zip", [("é", b"one")])
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    (member,) = read_zip_directory(path)
    assert member.name == "\udcff\udcfe"


def test_damage_is_told(tmp_path):
    path = write(tmp_path / "a.zip", [("cat/1.jpg", b"one"), ("cat/2.jpg", b"two")])
    whole = path.read_bytes()
    directory = whole.index(b"PK\1\2")
    for content, reason in (
        (b"rubbish", "it has no directory"),
        (whole[:-4], "its directory is cut short"),
        (whole[:directory] + b"PK\1\3" + whole[directory + 4 :], "its directory is damaged"),
        (whole[directory + 9 :], "its directory is damaged"),
        (whole[: directory + 28] + b"\xff\xff" + whole[directory + 30 :], "is cut short"),
        (whole[: directory + 24] + b"\xff" * 4 + whole[directory + 28 :], "is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(zipfile.BadZipFile, match=reason):
            list(read_zip_directory(path))


def test_memory_does_not_grow_with_the_number_of_members(tmp_path):
    path = write(tmp_path / "a.zip", [(f"cat/{number}.jpg", b"") for number in range(3000)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_zip_directory(path)) == 3000
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()
