"""Labeled files in a zip or tar, which are read where they lie: nothing is unpacked."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from library.dataset.locations import (
    Location,
    MemoryLocation,
    NoLocation,
    RangeLocation,
    StreamLocation,
    ZipLocation,
)
from library.dataset.sources.base import Entry, LabeledFile, label_files
from library.errors import DataError

# A zip member's flag for encryption.
_ENCRYPTED = 1


def find_in_archive(path: Path, inside: str, with_content: bool = False) -> Iterator[LabeledFile]:
    """Yield the labeled files of an archive.

    Args:
        path: The zip or tar.
        inside: The folder in the archive that holds the class folders; "" for the archive itself.
        with_content: Whether files of a compressed tar come with their bytes. Without them they
            have a StreamLocation.

    Raises:
        DataError: The archive cannot be read, or there is no such folder in it, or a class folder
            is empty.
    """
    source = f"{path}/{inside}" if inside else path
    return label_files(_find_inside(path, inside, with_content), source)


def _find_inside(path: Path, inside: str, with_content: bool) -> Iterator[Entry]:
    """Yield the members in a folder of an archive, named relative to it."""
    prefix = f"{inside}/" if inside else ""
    is_missing = True
    for member in find_members(path, with_content):
        name = member.name.removeprefix("./").replace("\\", "/")
        if not name.startswith(prefix):
            continue
        is_missing = False
        parts = name[len(prefix) :].rstrip("/").split("/")
        # A member may be named anything, and is only read; but no class is called "..".
        if ".." not in parts and parts != [""] and not name.startswith("/"):
            yield member._replace(name="/".join(parts))
    if is_missing:
        raise DataError(f"there is no folder {inside} in {path}" if inside else f"{path} is empty")


def find_members(path: Path, with_content: bool = False) -> Iterator[Entry]:
    """Yield the members of a zip or tar; `with_content` as for `find_in_archive`."""
    try:
        if _is_zip(path):
            yield from _zip_members(path)
        else:
            yield from _tar_members(path, with_content)
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
            yield Entry(each.filename, each.is_dir(), each.file_size, each.CRC, location)


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


def _tar_members(path: Path, with_content: bool) -> Iterator[Entry]:
    is_compressed = _is_compressed(path)
    with tarfile.open(path, "r|*" if is_compressed else "r:") as archive:
        for each in archive:
            # Otherwise tarfile would remember every member.
            archive.members.clear()  # type: ignore[attr-defined]
            location: Location = StreamLocation()
            if not each.isfile():
                location = NoLocation("it is a link or a device")
            elif not is_compressed:
                location = RangeLocation(str(path), each.offset_data, each.size)
            elif with_content and (file := archive.extractfile(each)):
                location = MemoryLocation(file.read())
            yield Entry(each.name, each.isdir(), each.size, int(each.mtime), location)


def _is_compressed(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return False
    except tarfile.TarError:
        return True
