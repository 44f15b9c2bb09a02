"""Labeled files in a zip or tar, which are read where they lie: nothing is unpacked."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from library.dataset.locations import (
    Location,
    MemoryLocation,
    NoLocation,
    RangeLocation,
    StreamLocation,
    ZipLocation,
)
from library.dataset.sources.base import LabeledFile, check_classes, label_of, make_labeled_file
from library.errors import DataError

# A zip member's flag for encryption.
_ENCRYPTED = 1


class Member(NamedTuple):
    """A member of an archive; its version changes with its content."""

    name: str
    is_folder: bool
    size: int
    version: int
    location: Location


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
    prefix = f"{inside}/" if inside else ""
    found, filled = set(), set()
    exists = False
    for member in find_members(path, with_content):
        name = member.name.removeprefix("./").replace("\\", "/")
        if not name.startswith(prefix):
            continue
        exists = True
        parts = name[len(prefix) :].rstrip("/").split("/")
        # A member may be named anything, and is only read; but no class is called "..".
        if ".." in parts or name.startswith("/"):
            continue
        if member.is_folder:
            if len(parts) == 1 and parts[0] and label_of(f"{parts[0]}/x") is not None:
                found.add(parts[0])
            continue
        name = "/".join(parts)
        label = label_of(name)
        if label is not None:
            filled.add(label)
            yield make_labeled_file(name, label, member.size, member.version, member.location)
    if not exists:
        raise DataError(f"there is no folder {inside} in {path}" if inside else f"{path} is empty")
    check_classes(found, filled, f"{path}/{inside}" if inside else str(path))


def find_members(path: Path, with_content: bool = False) -> Iterator[Member]:
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


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for each in archive.infolist():
            location = _zip_location(path, each)
            yield Member(each.filename, each.is_dir(), each.file_size, each.CRC, location)


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


def _tar_members(path: Path, with_content: bool) -> Iterator[Member]:
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
            yield Member(each.name, each.isdir(), each.size, int(each.mtime), location)


def _is_compressed(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return False
    except tarfile.TarError:
        return True
