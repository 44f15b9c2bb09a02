"""The members of a zip, one after another: Python's zipfile holds all of them, 650 bytes each."""

import struct
from typing import NamedTuple
from zipfile import BadZipFile

# The end of the directory, which ends the file but for a comment.
_END = struct.Struct("<4s4H2IH")
_END_MARK = b"PK\5\6"
_LONGEST_COMMENT = 0xFFFF
# What stands before it where a number would not fit.
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
# One member, without its name, its extra fields and its comment.
_MEMBER = struct.Struct("<4s6H3I5H2I")
_MEMBER_MARK = b"PK\1\2"
_IN_EXTRA = 0xFFFFFFFF
_EXTRA64 = 1
_IS_UTF8 = 0x800


class Member(NamedTuple):
    """Where a member lies, how its bytes are stored, and their CRC-32."""

    name: str
    offset: int
    stored: int
    size: int
    method: int
    flags: int
    crc: int


def read_zip_directory(path):
    """Yield the Members of a zip. Raises BadZipFile, OSError."""
    with path.open("rb") as file:
        begin, size, shift = _find_directory(file)
        file.seek(begin)
        while size > 0:
            member, length = _read_member(file, shift)
            size -= length
            yield member


def _find_directory(file):
    """Return where the directory begins, its size, and how far all offsets in it are off."""
    length = file.seek(0, 2)
    tail_at = max(0, length - _END.size - _LONGEST_COMMENT)
    file.seek(tail_at)
    tail = file.read()
    at = len(tail) - _END.size
    if not (tail.startswith(_END_MARK, max(at, 0)) and tail.endswith(b"\0\0")):
        at = tail.rfind(_END_MARK)  # There is a comment.
    if at < 0:
        raise BadZipFile("it has no directory")
    *_, size, offset, _ = _unpack(_END, tail[at:])
    end = tail_at + at
    before = end - _LOCATOR.size - _END64.size
    if before >= 0:
        file.seek(before)
        record = file.read(_END64.size)
        if record.startswith(b"PK\6\6") and file.read(4) == b"PK\6\7":
            *_, size, offset = _unpack(_END64, record)
            end = before
    # Something may stand before the archive: a program that unpacks it.
    shift = end - size - offset
    if shift < 0:
        raise BadZipFile("its directory is damaged")
    return offset + shift, size, shift


def _read_member(file, shift):
    """Return a Member, and how many bytes it takes in the directory."""
    mark, _, _, flags, method, _, _, crc, *sizes, offset = _unpack(_MEMBER, file.read(_MEMBER.size))
    stored, size, *lengths, _, _, _ = sizes
    if mark != _MEMBER_MARK:
        raise BadZipFile("its directory is damaged")
    rest = file.read(sum(lengths))
    if len(rest) < sum(lengths):
        raise BadZipFile("its directory is cut short")
    name, extra = rest[: lengths[0]], rest[lengths[0] : lengths[0] + lengths[1]]
    size, stored, offset = _long_numbers(extra, size, stored, offset)
    text = name.decode("utf-8", "surrogateescape") if flags & _IS_UTF8 else name.decode("cp437")
    member = Member(text, offset + shift, stored, size, method, flags, crc)
    return member, _MEMBER.size + len(rest)


def _long_numbers(extra, *numbers):
    """Return the numbers, those that did not fit replaced by what stands in the extra fields."""
    longer = iter(())
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _EXTRA64:
            field = extra[4 : 4 + length]
            longer = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        extra = extra[4 + length :]
    numbers = [next(longer, None) if each == _IN_EXTRA else each for each in numbers]
    if None in numbers:
        raise BadZipFile("its directory is damaged")
    return numbers


def _unpack(layout, content):
    if len(content) < layout.size:
        raise BadZipFile("its directory is cut short")
    return layout.unpack_from(content)
