"""Labeled files in a zip or tar, which are read where they lie: nothing is unpacked."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from library.dataset.locations import (
    Location,
    MemoryLocation,
    NoLocation,
    RangeLocation,
    ZipLocation,
)
from library.dataset.sources.base import Entry, LabeledFile, label_files, leads_outside
from library.errors import DataError, printable

# No archive of images expands as much: beyond this, it is made to fill memory or disk.
_MAX_EXPANSION, _EXPANSION_FLOOR_BYTES = 200, 4 << 30
# Members of a compressed tar come with their bytes, several times as many at once.
_MAX_STREAMED_BYTES = 1 << 26
# The longest name of a member of a tar, or list of its attributes, in bytes.
_MAX_TAR_HEADER_BYTES = 1 << 20
_TAR_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# A zip member's flag for encryption.
_ENCRYPTED = 1
# And for a name in UTF-8; without it, zipfile reads code page 437.
_UTF8 = 0x800


def find_in_archive(path: Path, inside: str) -> Iterator[LabeledFile]:
    """Yield the labeled files of an archive.

    Args:
        path: The zip or tar.
        inside: The folder in the archive that holds the class folders; "" for the archive itself.

    Raises:
        DataError: The archive cannot be read, or there is no such folder in it, or a class folder
            is empty.
    """
    source = f"{path}/{inside}" if inside else path
    return label_files(_find_inside(path, inside), source)


def _find_inside(path: Path, inside: str) -> Iterator[Entry]:
    """Yield the members in a folder of an archive, named relative to it."""
    prefix = f"{inside}/" if inside else ""
    is_missing = True
    for member in find_members(path):
        if not member.name.lstrip("/").startswith(prefix):
            continue
        is_missing = False
        if leads_outside(member.name):
            # Rejected and listed by its whole name.
            yield member
        elif name := member.name[len(prefix) :].rstrip("/"):
            yield member._replace(name=name)
    if is_missing:
        raise DataError(f"there is no folder {inside} in {path}" if inside else f"{path} is empty")


def find_members(path: Path) -> Iterator[Entry]:
    """Yield the members of a zip or tar; those of a compressed tar come with their bytes.

    Names have slashes. A member whose name leads out of the archive is never read.
    """
    try:
        members = _zip_members(path) if _is_zip(path) else _tar_members(path)
        most, total = _MAX_EXPANSION * path.stat().st_size + _EXPANSION_FLOOR_BYTES, 0
        for member in members:
            name = member.name.removeprefix("./").replace("\\", "/")
            total += member.size
            if total > most:
                text = f"up to its member {printable(name)} it would unpack to {total:,} bytes"
                raise DataError(f"{path} is refused: {text}")
            outside = NoLocation("its name leads out of the archive")
            location = outside if leads_outside(name) else member.location
            yield member._replace(name=name, location=location)
    except (
        *(zipfile.BadZipFile, tarfile.TarError, EOFError, OSError),
        # zipfile raises these for a damaged directory.
        *(ValueError, NotImplementedError),
    ) as error:
        raise DataError(f"{path} is not a readable archive: {error}") from None


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        begins_as_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    # A tar may hold whatever a zip ends with; a zip may begin with a program.
    return begins_as_zip or (not tarfile.is_tarfile(path) and zipfile.is_zipfile(path))


def _zip_members(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for each in archive.infolist():
            location = _zip_location(path, each)
            yield Entry(_zip_name(each), each.is_dir(), each.file_size, each.CRC, location)


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name, as UTF-8 if it is that and does not say so: macOS writes such."""
    if member.filename.isascii() or member.flag_bits & _UTF8:
        return member.filename
    try:
        return member.orig_filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def _zip_location(path: Path, member: zipfile.ZipInfo) -> Location:
    if member.flag_bits & _ENCRYPTED:
        return NoLocation("it is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return NoLocation(f"its compression method {member.compress_type} is not supported")
    return ZipLocation(
        str(path),
        member.header_offset,
        member.compress_size,
        member.file_size,
        member.compress_type == zipfile.ZIP_DEFLATED,
    )


class _TarMember(tarfile.TarInfo):
    """A member of a tar. tarfile reads the headers that are files of their own whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member that a header describes. Raises TarError if it would be huge."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _TAR_HEADERS and member.size > _MAX_TAR_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims to have {member.size:,} bytes")
        return member


def _tar_members(path: Path) -> Iterator[Entry]:
    is_compressed = _is_compressed(path)
    mode: Any = "r|*" if is_compressed else "r:"
    with tarfile.open(path, mode, tarinfo=_TarMember, encoding="utf-8") as archive:
        for each in archive:
            # Otherwise tarfile would remember every member.
            archive.members.clear()  # type: ignore[attr-defined]
            location: Location = NoLocation("it is a link or a device")
            if each.isfile() and not is_compressed:
                location = RangeLocation(str(path), each.offset_data, each.size)
            elif each.size > _MAX_STREAMED_BYTES:
                location = NoLocation(
                    f"its {each.size:,} bytes are more than {_MAX_STREAMED_BYTES:,}, the most that "
                    "is read from a compressed tar"
                )
            elif each.isfile() and (file := archive.extractfile(each)):
                location = MemoryLocation(file.read())
            yield Entry(each.name, each.isdir(), each.size, int(each.mtime), location)


def _is_compressed(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:", tarinfo=_TarMember):
            return False
    except tarfile.TarError:
        return True
