"""Labelled files in a folder or an archive: which there are, of which class, and their bytes."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from library.errors import DataError

SPLITS = ("train", "validation", "test")

# What a conversion writes, which may lie among the images it was made from.
OURS = (".tfrecord", ".manifest.json", ".rejected.csv")
_SYSTEM = {"Thumbs.db", "desktop.ini", "__MACOSX"}


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """A file that should be an image.

    `name` is its path inside the source, with slashes. `stamp` changes when its content does.
    `place` says where its bytes are: (path,) or (archive, offset, bytes stored, is deflated).
    """

    name: str
    label: str
    size: int
    stamp: int
    place: tuple


def find_files(source, without=None):
    """Yield the LabelledFiles of a folder, or of a folder inside an archive, in no certain order.

    The first folder is the class: `cat/7.jpg`, `cat/indoors/8.jpg`. The folder `without` is not
    looked into. Raises DataError where `source` is missing or can't be read.
    """
    source = Path(source)
    if source.is_dir():
        return _find_in_folder(source, Path(without).resolve() if without else None)
    for archive in (source, *source.parents):
        if archive.is_file():
            inside = source.relative_to(archive).as_posix()
            return _find_in_zip(archive, "" if inside == "." else f"{inside}/")
    raise DataError(f"there is no folder {source}: put images at {source}/<class>/<image>")


def _find_in_folder(root, without):
    # Folders are visited once, whatever links lead back to them.
    seen = set()
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        identity = os.stat(folder)
        if (identity.st_dev, identity.st_ino) in seen or folder.resolve() == without:
            continue
        seen.add((identity.st_dev, identity.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if not is_ignored(entry.name):
                        waiting.append((Path(entry.path), f"{prefix}{entry.name}/"))
                elif (label := label_of(prefix + entry.name)) is not None:
                    status = entry.stat()
                    yield LabelledFile(
                        prefix + entry.name,
                        label,
                        status.st_size,
                        status.st_mtime_ns,
                        (entry.path,),
                    )


def _find_in_zip(path, inside):
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no zip that can be read: {error}") from None
    found = False
    for member in members:
        if member.is_dir() or not member.filename.startswith(inside):
            continue
        found = True
        name = member.filename[len(inside) :]
        label = label_of(name)
        if label is None or ".." in PurePosixPath(name).parts:
            continue
        deflated = member.compress_type == zipfile.ZIP_DEFLATED
        place = (str(path), member.header_offset, member.compress_size, deflated)
        yield LabelledFile(name, label, member.file_size, member.CRC, place)
    if not found:
        raise DataError(f"there is no folder {inside} in {path}")


def label_of(name):
    """Give the class of a path inside a source, or None if the file is none of the images."""
    parts = name.split("/")
    if len(parts) < 2 or any(is_ignored(part) for part in parts) or parts[-1].endswith(OURS):
        return None
    return parts[0]


def is_ignored(name):
    """Tell whether a file or folder of this name is the system's, not the user's."""
    return name.startswith(".") or name in _SYSTEM
