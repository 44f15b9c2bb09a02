"""The bytes of a labeled file, wherever it is."""

import os
import struct
import zlib
from io import FileIO
from pathlib import Path

from library.dataset.records import ENCODED, Fields
from library.errors import DataError

# No image of as many pixels as are taken, at 8 bytes each, is larger.
_MOST_BYTES = 1 << 30
_ZIP_HEADER = 30
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1


def read_content(place):
    """Return the bytes of a LabeledFile from its `place`. Raises OSError or ValueError.

    Raises UnreachableError where the network fails: nothing is known of the file then.
    A place is (kind, …): one of the functions below, and its arguments.
    """
    kind, *where = place
    return _READERS[kind](*where)


def _read_file(path):
    # Unbuffered: in one piece, without a copy.
    with FileIO(path) as file:
        _check_size(os.fstat(file.fileno()).st_size)
        return file.readall()


def _check_size(size):
    """Raise ValueError for what would fill the memory. Nothing of it has been read."""
    if size > _MOST_BYTES:
        raise ValueError(f"its {size:,} bytes are more than {_MOST_BYTES:,}")


def _read_range(path, offset, size):
    _check_size(size)
    with Path(path).open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ValueError("the archive is cut short")
    return content


def _read_zipped(path, offset, stored, size, method, flags):
    if flags & _ENCRYPTED:
        raise ValueError("it is encrypted")
    if method not in (_STORED, _DEFLATED):
        raise ValueError(f"its compression method {method} is not supported")
    _check_size(size)
    # The name and the extra field may be longer or shorter here than in the central directory.
    header = _read_range(path, offset, _ZIP_HEADER)
    name_length, extra_length = struct.unpack_from("<HH", header, 26)
    content = _read_range(path, offset + _ZIP_HEADER + name_length + extra_length, stored)
    if method == _DEFLATED:
        try:
            # No more than what the directory says, whatever the data would swell to.
            content = zlib.decompressobj(wbits=-15).decompress(content, size + 1)
        except zlib.error as error:
            raise ValueError(f"its compressed data is damaged: {error}") from None
    if len(content) != size:
        raise ValueError("its size is not that in the archive's directory")
    return content


def _read_record(path, offset, size):
    return Fields(_read_range(path, offset, size), path).get_bytes(ENCODED)


def _give_content(content):
    return content


def _refuse(reason):
    raise ValueError(reason)


def _read_remote(url):
    from library.dataset.storage import read_url

    try:
        return read_url(url)
    except DataError as error:
        # This file's own fault; where nothing can be reached, it is none's.
        raise OSError(str(error)) from None


_READERS = {
    "file": _read_file,
    "range": _read_range,
    "zipped": _read_zipped,
    "record": _read_record,
    "content": _give_content,
    "none": _refuse,
    "remote": _read_remote,
}
