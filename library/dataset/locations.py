"""Where the bytes of a labeled file are, one class per kind, and how each kind is read.

`read()` raises OSError or ValueError for a file that cannot be read, and UnreachableError if the
network fails, which says nothing about the file.
"""

import contextlib
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from library.errors import DataError, reason_of
from library.files import open_regular_file, open_without_waiting

# The largest file that is read. As every core reads one, more would fill the memory.
_MAX_BYTES = 1 << 28
# A member's header in a zip, before its name.
_ZIP_HEADER_BYTES = 30


class FileLocation(NamedTuple):
    """A file on a local disk."""

    path: str

    def read(self) -> bytes:
        """Return the file's bytes."""
        # Unbuffered: in one piece, without a copy.
        with open_regular_file(self.path) as file:
            _check_size(os.fstat(file.fileno()).st_size)
            return file.readall() or b""


class RangeLocation(NamedTuple):
    """Bytes within a file, such as a member of an uncompressed tar."""

    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes of the range."""
        return _read_range(self.path, self.offset, self.size)


class ZipLocation(NamedTuple):
    """A member of a zip, stored or deflated.

    Read without zipfile, which would hold the archive's whole directory in every worker: 650 bytes
    per member.
    """

    path: str
    offset: int
    compressed_size: int
    size: int
    is_deflated: bool

    def read(self) -> bytes:
        """Return the member's bytes, decompressed."""
        _check_size(self.size)
        # The name and the extra field may be of other lengths than in the archive's directory.
        header = _read_range(self.path, self.offset, _ZIP_HEADER_BYTES)
        begin = self.offset + _ZIP_HEADER_BYTES + sum(struct.unpack_from("<HH", header, 26))
        content = _read_range(self.path, begin, self.compressed_size)
        if self.is_deflated:
            try:
                # No more than the directory says, however much the data would expand to.
                content = zlib.decompressobj(wbits=-15).decompress(content, self.size + 1)
            except zlib.error as error:
                raise ValueError(f"its compressed data is damaged: {error}") from None
        if len(content) != self.size:
            raise ValueError("its size is not the one in the archive's directory")
        return content


class PixelLocation(NamedTuple):
    """Bytes within a file that are the uint8 pixels of an image."""

    path: str
    offset: int
    height: int
    width: int
    channels: int

    def read(self) -> bytes:
        """Return the image as a PNG."""
        shape = (self.height, self.width, self.channels)
        return encode_pixels(_read_range(self.path, self.offset, math.prod(shape)), shape)


class MemoryLocation(NamedTuple):
    """Bytes that were read already."""

    content: bytes

    def read(self) -> bytes:
        """Return the bytes."""
        return self.content


class RemoteLocation(NamedTuple):
    """A file at a URL."""

    url: str

    def read(self) -> bytes:
        """Return the file's bytes."""
        from library.dataset.storage import read_url

        try:
            return read_url(self.url)
        except DataError as error:
            raise OSError(str(error)) from None


class NoLocation(NamedTuple):
    """A file that is never read."""

    reason: str

    def read(self) -> bytes:
        """Raise ValueError with the reason."""
        raise ValueError(self.reason)


Location = (
    FileLocation
    | RangeLocation
    | ZipLocation
    | PixelLocation
    | MemoryLocation
    | RemoteLocation
    | NoLocation
)


def prefetch(locations: Iterable[Location]) -> None:
    """Have the system fetch files from the disk, all at once, before they are read one by one.

    Otherwise each would be waited for, half a core's time for small images that are stored as they
    are. Errors are left to `read`.
    """
    if not hasattr(os, "posix_fadvise"):  # macOS, Windows
        return
    for location in locations:
        if isinstance(location, FileLocation | RangeLocation):
            begin, size = location[1:] if isinstance(location, RangeLocation) else (0, 0)
            with contextlib.suppress(OSError, ValueError):
                handle = open_without_waiting(location.path)
                try:
                    os.posix_fadvise(handle, begin, size, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(handle)


# Size, version and location of a file; the version changes with its content.
Facts = tuple[int, int, Location]


def locate(path: str | Path) -> Facts:
    """Return the facts of a local file; NoLocation has the reason why it can't be read."""
    try:
        status = os.stat(path)  # noqa: PTH116 a Path would cost as much as the call
    except (OSError, ValueError) as error:
        return 0, 0, NoLocation(reason_of(error))
    location: Location = FileLocation(str(path))
    if not stat.S_ISREG(status.st_mode):
        # Reading from a pipe or a device could block forever.
        location = NoLocation("it is not a regular file")
    return status.st_size, status.st_mtime_ns, location


def encode_pixels(content: bytes, shape: tuple[int, int, int]) -> bytes:
    """Return uint8 pixels of a shape (height, width, channels) as a PNG."""
    import io

    from PIL import Image

    height, width, channels = shape
    _check_size(len(content))
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    file = io.BytesIO()
    Image.frombytes(mode, (width, height), content).save(file, "png", compress_level=1)
    return file.getvalue()


def _check_size(size: int) -> None:
    """Raise ValueError for a size that would fill the memory, before anything is read."""
    if size > _MAX_BYTES:
        raise ValueError(f"its {size:,} bytes are more than {_MAX_BYTES:,}")


def _read_range(path: str, offset: int, size: int) -> bytes:
    _check_size(size)
    with Path(path).open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ValueError("the archive is cut short")
    return content
