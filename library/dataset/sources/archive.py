"""Labeled files in a zip or tar. Nothing is unpacked: workers read each member where it lies."""

import tarfile
import zipfile

from library.dataset.sources.base import check_classes, label_of, labeled_file
from library.dataset.zip_directory import read_zip_directory
from library.errors import DataError


def find_in_archive(path, inside, with_content=False):
    """Yield the LabeledFiles under the folder `inside` of an archive.

    Those of a compressed tar are placed in the stream, or hold their own bytes `with_content`.
    """
    prefix = f"{inside}/" if inside else ""
    found, filled = set(), set()
    is_there = False
    for name, is_folder, size, stamp, place in find_members(path, with_content):
        name = name.removeprefix("./").replace("\\", "/")
        if not name.startswith(prefix):
            continue
        is_there = True
        parts = name[len(prefix) :].rstrip("/").split("/")
        # A member can name any place, and we only read; but no class is called "..".
        if ".." in parts or name.startswith("/"):
            continue
        if is_folder:
            if len(parts) == 1 and parts[0] and label_of(f"{parts[0]}/x") is not None:
                found.add(parts[0])
            continue
        label = label_of("/".join(parts))
        if label is not None:
            filled.add(label)
            yield labeled_file("/".join(parts), label, size, stamp, place)
    if not is_there:
        raise DataError(f"there is no folder {inside} in {path}" if inside else f"{path} is empty")
    check_classes(found, filled, f"{path}/{inside}" if inside else path)


def find_members(path, with_content=False):
    """Yield (name, is a folder, size, stamp, place) of each member."""
    try:
        if _is_zip(path):
            yield from _zip_members(path)
        else:
            yield from _tar_members(path, with_content)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} is no archive that can be read: {error}") from None


def _is_zip(path):
    with path.open("rb") as file:
        begins_as_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    # A tar may hold whatever a zip ends in; before a zip there may be a program.
    return begins_as_zip or (not tarfile.is_tarfile(path) and zipfile.is_zipfile(path))


def _zip_members(path):
    for each in read_zip_directory(path):
        place = (
            *("zipped", str(path), each.offset, each.stored),
            *(each.size, each.method, each.flags),
        )
        yield each.name, each.name.endswith("/"), each.size, each.crc, place


def _tar_members(path, with_content):
    compressed = _is_compressed(path)
    with tarfile.open(path, "r|*" if compressed else "r:") as archive:
        for each in archive:
            # Or tarfile would keep them all.
            archive.members.clear()
            if not each.isfile():
                place = ("none", "it is a link or a device")
            elif not compressed:
                place = ("range", str(path), each.offset_data, each.size)
            elif with_content:
                place = ("content", archive.extractfile(each).read())
            else:
                place = ("streamed",)
            yield each.name, each.isdir(), each.size, int(each.mtime), place


def _is_compressed(path):
    try:
        with tarfile.open(path, "r:"):
            return False
    except tarfile.TarError:
        return True
